"""The whole demo on a real ComfyUI: the pictures, their workflows, and what it says."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from host import models
from host.cache import cache_root
from host.demo import stage, trial
from host.demo.stage import Scene

SMALL = 64


@pytest.fixture(scope="module")
def ran(comfyui, tmp_path_factory):
    """(output folder, the sheet, what was printed) of a run with the embedded models, small."""
    output = tmp_path_factory.mktemp("demo")

    def lay_out(base: Path) -> Scene:
        models.make_base(base, models.models_dir(cache_root()))
        return Scene(dataclasses.replace(trial.EMBEDDED, size=SMALL))

    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda *parts, **_: said.append(" ".join(map(str, parts))))
        sheet = stage.perform(lay_out, output, 300)
    return output, sheet, "\n".join(said)


def prompt_of(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["prompt"])


def test_it_ends_with_one_sheet_of_all_pictures(ran):
    output, sheet, said = ran
    assert sheet == output / "demo.jpg" and sheet.stat().st_size < 400_000
    names = sorted(path.name for path in output.glob("edit*.png"))
    assert [name.partition("_")[0] for name in names] == [
        "edit-all-loras",
        "edit-lora-1",
        "edit-lora-2",
        "edit",
    ]
    with Image.open(sheet) as picture:
        assert picture.width == 1800 and picture.height > 1200, "two rows of three"
    for name in names:
        assert name in said
    assert (output / "server.log").is_file()


def test_the_pictures_differ_by_the_stack_alone(ran):
    output, _, _ = ran
    on = {}
    graphs = []
    for path in output.glob("edit*.png"):
        graph = prompt_of(path)
        (stack,) = [n for n in graph.values() if n["class_type"] == "Flux2EditLoraStack"]
        (save,) = [n for n in graph.values() if n["class_type"] == "SaveImage"]
        name = save["inputs"].pop("filename_prefix")
        on[name] = [stack["inputs"].pop(f"lora_{number}.enabled") for number in (1, 2)]
        graphs.append({key: (n["class_type"], n["inputs"]) for key, n in graph.items()})
    assert on == {
        "edit": [False, False],
        "edit-lora-1": [True, False],
        "edit-lora-2": [False, True],
        "edit-all-loras": [True, True],
    }
    assert all(graph == graphs[0] for graph in graphs)


def test_each_lora_changes_the_picture(ran):
    pictures = [Image.open(path).convert("RGB") for path in sorted(ran[0].glob("edit*.png"))]
    assert {picture.size for picture in pictures} == {(SMALL, SMALL)}
    for number, one in enumerate(pictures):
        for other in pictures[number + 1 :]:
            assert ImageChops.difference(one, other).getbbox(), "two pictures are the same"


def test_what_it_says_is_for_a_stranger(ran):
    said = ran[2]
    assert trial.EMBEDDED.prompt in said and trial.EMBEDDED.model in said
    assert "queued again, it ran" in said
    assert "nothing is sent, nothing is paid" in said
    assert all(lora.label in said for lora in trial.EMBEDDED.loras)
