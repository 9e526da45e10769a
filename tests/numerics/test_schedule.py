"""The sampler's sigmas against the formula of the model's authors, written out from their code.

Source: ``compute_empirical_mu`` and ``get_schedule`` in black-forest-labs/flux2.
"""

import importlib
import math

import pytest

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

SIZES = [
    (512, 512), (1024, 1024), (768, 1024), (576, 1024), (1024, 768), (1024, 576), (992, 736),
    (1360, 768), (2048, 2048), (2016, 512), (144, 96), (1040, 1056),
]  # fmt: skip


def authors_sigmas(steps: int, width: int, height: int) -> list[float]:
    """Two lines in the token count, at 10 and at 200 steps, joined linearly in the steps."""
    tokens = width * height // 256
    at_200 = 0.00016927 * tokens + 0.45666666
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (at_200 - at_10) / 190
    mu = at_200 if tokens > 4300 else slope * steps + at_200 - 200 * slope
    times = [1 - k / steps for k in range(steps)]
    return [math.exp(mu) / (math.exp(mu) + 1 / t - 1) for t in times] + [0.0]


@pytest.fixture(scope="module")
def sampler(comfy_inprocess):
    return importlib.import_module("flux2_lora_edit.nodes.sampler")


@pytest.mark.parametrize("steps", [1, 4, 8, 28, 50])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_sigmas_equal_the_authors(sampler, steps, size):
    sigmas = sampler.make_sigmas(steps, *size, denoise=1.0).tolist()
    assert sigmas == pytest.approx(authors_sigmas(steps, *size), abs=2e-6)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0


def test_sigmas_depend_on_the_output_size_below_the_knee(sampler):
    assert (
        sampler.make_sigmas(4, 512, 512, 1.0).tolist()
        != sampler.make_sigmas(4, 1024, 1024, 1.0).tolist()
    )


def test_denoise_takes_the_tail(sampler):
    whole = sampler.make_sigmas(8, 512, 512, 1.0).tolist()
    assert sampler.make_sigmas(4, 512, 512, 0.5).tolist() == whole[4:]
