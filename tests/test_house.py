"""The house stays simple: its levels, its functions, and what three small jobs pass through.

``tests/house.py`` says how each figure is counted; run by itself it prints them all, and the size.
"""

import house
import pytest

ENTERED = {
    "LoRA name to bytes changed": (20, 85),
    "prompt to hosted picture": (20, 110),
    "URL to file": (12, 60),
}
"""Flow -> the most modules and functions that it may enter."""


def largest(measure):
    """(figure, place) of the function with the highest ``measure``."""
    return max((measure(one), f"{one.path} {one.name}") for one in house.functions())


@pytest.mark.parametrize(
    ("figure", "most"),
    [
        pytest.param(lambda: (house.fullest_level("lora_loader"),), 10, id="level of lora_loader"),
        pytest.param(lambda: largest(house.length), 45, id="lines of a function"),
        pytest.param(lambda: largest(house.complexity), 15, id="complexity of a function"),
        pytest.param(lambda: (len(house.undocumented()), house.undocumented()), 0, id="docstrings"),
    ],
)
def test_what_is_written(figure, most):
    found, *where = figure()
    assert found <= most, where


@pytest.mark.parametrize("name", ENTERED)
def test_what_a_job_enters(comfy_inprocess, name):
    modules, functions = house.flow(name)
    most_modules, most_functions = ENTERED[name]
    assert modules <= most_modules, functions
    assert len(functions) <= most_functions, functions
