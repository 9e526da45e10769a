"""The sampler's sigmas against the formula of the model's authors, written out from their code.

Source: ``compute_empirical_mu`` and ``get_schedule`` in black-forest-labs/flux2. The Turbo LoRA's
against diffusers, which its card is written for.
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


CARD = [1.0, 0.6509, 0.4374, 0.2932, 0.1893, 0.1108, 0.0495, 0.00031]
"""TURBO_SIGMAS of the card of fal/FLUX.2-dev-Turbo."""


@pytest.fixture
def turbo():
    from flux2_lora_edit.flux2.settings import PRESETS, TURBO

    return PRESETS[TURBO]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_turbo_loras_own_are_what_diffusers_makes_of_its_card(sampler, turbo, size):
    diffusers = pytest.importorskip("diffusers")
    pipeline = pytest.importorskip("diffusers.pipelines.flux2.pipeline_flux2")
    tokens = size[0] * size[1] // 256
    # As scheduler/scheduler_config.json of black-forest-labs/FLUX.2-dev has it.
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, time_shift_type="exponential", shift=3.0
    )
    mu = pipeline.compute_empirical_mu(image_seq_len=tokens, num_steps=8)
    scheduler.set_timesteps(num_inference_steps=8, sigmas=CARD, mu=mu)
    ours = sampler.make_sigmas(turbo.steps, *size, 1.0, turbo.sigmas)
    assert ours.tolist() == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    assert len(ours) == 9 and ours[-1] == 0


def test_at_a_megapixel_the_turbo_loras_own_are_an_even_schedule_at_shift_3(sampler, turbo):
    """Which is what the card's numbers are made for: pre-shifted, so that the shift gives this."""
    times = [1 - 0.999 * k / 7 for k in range(8)]
    even = [3 * time / (1 + 2 * time) for time in times]
    ours = sampler.make_sigmas(8, 1024, 1024, 1.0, turbo.sigmas).tolist()
    assert ours[:-1] == pytest.approx(even, abs=3e-4)
    assert CARD[1:-1] != pytest.approx(even[1:-1], abs=0.1)


@pytest.mark.parametrize(("denoise", "left"), [(1.0, 8), (0.5, 4), (0.3, 2), (0.01, 1)])
def test_denoise_takes_the_tail_of_the_turbo_loras_own(sampler, turbo, denoise, left):
    whole = sampler.make_sigmas(8, 512, 512, 1.0, turbo.sigmas).tolist()
    assert sampler.make_sigmas(8, 512, 512, denoise, turbo.sigmas).tolist() == whole[-left - 1 :]
