"""Presets and schedules of one's own are the host's own graph with the same numbers, bit for bit;
what is said of settings that are another model's; and what is refused."""

import math
import re
import shutil

import pytest
import torch

from graphs import PROMPT, loaders, read_latent
from host.graph import Graph

pytestmark = pytest.mark.host

SIZE = (96, 64)
TURBO = "dev with Turbo LoRA"
CARD = (1.0, 0.6509, 0.4374, 0.2932, 0.1893, 0.1108, 0.0495, 0.00031)
OWN = "1.0, 0.9, 0.55, 0.2, 0.0"
DISTILLED, BASE = "flux-2-klein-4b.safetensors", "flux-2-klein-base-4b.safetensors"
FINETUNE = "my-klein-finetune.safetensors"


def turbo_sigmas(width, height):
    """The card's eight, shifted for the size as the model's authors shift theirs, as text."""
    tokens = width * height / 256
    at_10, at_200 = 8.73809524e-05 * tokens + 1.89833333, 0.00016927 * tokens + 0.45666666
    slope = (at_200 - at_10) / 190.0
    shift = math.exp(slope * 8 + at_200 - 200.0 * slope)
    sigmas = shift / (shift + 1 / torch.tensor(CARD) - 1)
    return ", ".join(f"{sigma:.12f}" for sigma in [*sigmas.tolist(), 0])


def both(graph, unet, text, latent, schedule, right, cfg, ours):
    """Our sampler with the inputs ``ours``, and the stock one with the ``schedule``, an output, and
    the ``right`` guidance; their latents are saved."""
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=text, latent_image=latent, seed=7, **ours
    )
    if cfg:
        guider = graph.add("CFGGuider", model=unet, positive=text, negative=text.out(1), cfg=right)
    else:
        guided = graph.add("FluxGuidance", conditioning=text, guidance=right)
        guider = graph.add("BasicGuider", model=unet, conditioning=guided)
    stock = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=7),
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="euler"),
        sigmas=schedule,
        latent_image=latent,
    )
    graph.add("SaveLatent", samples=sampler, filename_prefix="settings-ours")
    graph.add("SaveLatent", samples=stock, filename_prefix="settings-stock")
    return sampler


def start(model, vae):
    """(graph, model, conditioning, latent) of a small picture."""
    graph = Graph()
    unet, clip, vae = loaders(graph, model, vae)
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT)
    latent = graph.add("EmptyFlux2LatentImage", width=SIZE[0], height=SIZE[1], batch_size=1)
    return graph, unet, text, latent


def scheduled(graph, unet, schedule):
    """A schedule as an output: of a kind, and its numbers."""
    kind, *numbers = schedule
    if kind == "own":
        return graph.add("ManualSigmas", sigmas=OWN)
    if kind == "basic":
        return graph.add(
            "BasicScheduler", model=unet, scheduler="beta", steps=numbers[0], denoise=1.0
        )
    if kind == "turbo":
        sigmas = graph.add("ManualSigmas", sigmas=turbo_sigmas(*SIZE))
        if numbers:
            return graph.add("SplitSigmasDenoise", sigmas=sigmas, denoise=numbers[0]).out(1)
        return sigmas
    return graph.add("Flux2Scheduler", steps=numbers[0], width=SIZE[0], height=SIZE[1])


@pytest.mark.parametrize(
    ("model", "ours", "schedule", "guidance", "words"),
    [
        ("dev", dict(preset="dev", steps=3, guidance=9.0, denoise=1.0), ("flux2", 28), 4.0,
         "preset dev: 28 steps, embedded guidance 4"),
        ("dev", dict(preset=TURBO), ("turbo",), 2.5,
         f"preset {TURBO}: 8 steps of its own schedule, embedded guidance 2.5"),
        ("dev", dict(preset=TURBO, denoise=0.5), ("turbo", 0.5), 2.5,
         f"preset {TURBO}: 4 steps, the last of its own 8, embedded guidance 2.5"),
        ("klein", dict(preset="klein distilled"), ("flux2", 4), 1.0,
         "preset klein distilled: 4 steps, no CFG"),
        ("klein", dict(preset="klein distilled", negative=True), ("flux2", 4), 1.0,
         "preset klein distilled: 4 steps, no CFG: negative does nothing"),
        ("klein", dict(preset="klein base", negative=True, guidance=1.0), ("flux2", 50), 4.0,
         "preset klein base: 50 steps, CFG 4, two forwards a step"),
        ("klein", dict(preset="as set", steps=5, guidance=3.0, negative=True), ("flux2", 5), 3.0,
         "5 steps, CFG 3, two forwards a step"),
        ("dev", dict(sigmas=True, steps=50, guidance=3.0, denoise=0.3), ("own",), 3.0,
         "4 steps of sigmas, in place of steps and denoise, embedded guidance 3"),
        ("dev", dict(sigmas=True, guidance=3.0), ("basic", 6), 3.0, "6 steps of sigmas"),
        ("dev", dict(sigmas=True, preset=TURBO), ("own",), 2.5,
         f"preset {TURBO}: 4 steps of sigmas, in place of steps and denoise, embedded guidance"),
        ("klein", dict(sigmas=True, preset="klein base", negative=True), ("own",), 4.0,
         "preset klein base: 4 steps of sigmas, in place of steps and denoise, CFG 4"),
        ("klein", dict(sigmas=True, guidance=1.0), ("basic", 4), 1.0, "4 steps of sigmas"),
    ],
    ids=str,
)  # fmt: skip
def test_bit_equal_to_the_stock_graph(
    server, client, small_vae, model, ours, schedule, guidance, words
):
    graph, unet, text, latent = start(model, small_vae)
    sigmas = scheduled(graph, unet, schedule)
    given = dict(ours)
    cfg = given.pop("negative", False)
    if cfg:
        given["negative"] = text.out(1)
    if given.pop("sigmas", False):
        given["sigmas"] = sigmas
    sampler = both(graph, unet, text, latent, sigmas, guidance, cfg, given)
    said = client.run(graph.prompt).check().outputs[sampler]["text"][0]
    assert said.startswith(f"96x64, {words}")
    latents = [read_latent(server.output, f"settings-{name}") for name in ("ours", "stock")]
    assert torch.equal(*latents) and latents[0].std() > 0


def test_the_cards_bare_list_is_another_picture(server, client, small_vae):
    """As a check of the check: the shift by the size of the output matters."""
    graph, unet, text, latent = start("dev", small_vae)
    bare = graph.add("ManualSigmas", sigmas=", ".join(f"{one:.5f}" for one in [*CARD, 0]))
    both(graph, unet, text, latent, bare, 2.5, False, {"preset": TURBO})
    client.run(graph.prompt).check()
    latents = [read_latent(server.output, f"settings-{name}") for name in ("ours", "stock")]
    assert not torch.allclose(*latents, atol=1e-2)


@pytest.fixture(scope="module")
def named(base):
    """klein under the names that tell which it is, and one that does not."""
    folder = base / "models" / "diffusion_models"
    for name in (DISTILLED, BASE, FINETUNE):
        shutil.copyfile(folder / "flux2-klein-tiny.safetensors", folder / name)
    yield
    for name in (DISTILLED, BASE, FINETUNE):
        (folder / name).unlink()


@pytest.fixture(scope="module")
def turbo(base):
    """A LoRA of another name and Turbo's: what it holds is nobody's business here."""
    folder = base / "models" / "loras"
    shutil.copyfile(folder / "ai-toolkit.safetensors", folder / "Flux_2-Turbo-LoRA.safetensors")
    yield "Flux_2-Turbo-LoRA.safetensors"
    (folder / "Flux_2-Turbo-LoRA.safetensors").unlink()


@pytest.mark.parametrize("patched", [False, True], ids=["as loaded", "patched"])
@pytest.mark.parametrize(
    ("file", "ours", "line"),
    [
        (DISTILLED, dict(steps=28), f"{DISTILLED} is klein distilled: set steps to 4, or preset"),
        (DISTILLED, dict(steps=4, guidance=4.0, negative=True), "set guidance to 1, or preset to"),
        (DISTILLED, dict(steps=4), ""),
        (BASE, dict(preset="klein distilled"),
         f"{BASE} is klein base: set steps to 20 or more and guidance to 4 with a negative"),
        (BASE, dict(steps=20, guidance=4.0, negative=True), ""),
        (FINETUNE, dict(steps=28, guidance=4.0, negative=True), ""),
        (FINETUNE, dict(steps=4), ""),
        ("flux2-dev-tiny.safetensors", dict(steps=4), "dev takes more steps than 4: set steps"),
        ("flux2-dev-tiny.safetensors", dict(preset=TURBO), "no LoRA is on the model: add the Turb"),
        ("flux2-dev-tiny.safetensors", dict(steps=28), ""),
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_another_model_are_said_in_a_line(
    client, small_vae, named, file, ours, line, patched
):
    graph = Graph()
    _, clip, vae = loaders(graph, "dev", small_vae)
    unet = graph.add("UNETLoader", unet_name=file, weight_dtype="default")
    if patched:  # a clone that a node patched comes from the same file
        unet = graph.add("ModelSamplingFlux", model=unet, max_shift=1.15, base_shift=0.5,
                         width=96, height=64)  # fmt: skip
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT)
    latent = graph.add("EmptyFlux2LatentImage", width=32, height=32, batch_size=1)
    given = {**ours, "negative": text.out(1)} if "negative" in ours else ours
    sampler = graph.add("Flux2EditSampler", model=unet, positive=text, latent_image=latent, **given)
    graph.add("SaveLatent", samples=sampler, filename_prefix="said")
    result = client.run(graph.prompt).check()
    lines = result.outputs[sampler]["text"][0].split("\n")
    assert len(lines) == (2 if line else 1), lines
    assert not line or lines[1].startswith("Settings: ") and line in lines[1]
    assert [text for node, text in result.texts if node == sampler] == ["\n".join(lines)]


@pytest.mark.parametrize(
    ("loras", "scale", "steps", "line"),
    [
        ("turbo", 1.0, 8, ""),
        ("turbo", 1.0, 4, ""),
        ("ai-toolkit.safetensors", 1.0, 28, ""),
        ("ai-toolkit.safetensors", 1.0, 4, "dev takes more steps than 4"),
        ("ai-toolkit.safetensors", 1.0, TURBO, ""),
        ("ai-toolkit.safetensors", 0.0, TURBO, "no LoRA is on the model"),
    ],
)
def test_a_lora_for_few_steps_is_known_by_its_name(
    client, small_vae, turbo, loras, scale, steps, line
):
    graph, unet, text, latent = start("dev", small_vae)
    stack = graph.add(
        "Flux2EditLoraStack",
        **{"lora_1": "installed", "lora_1.file": turbo if loras == "turbo" else loras,
           "lora_1.scale": scale, "lora_1.enabled": True},
    )  # fmt: skip
    applied = graph.add("Flux2EditApplyLoraStack", model=unet, lora_stack=stack)
    given = {"preset": steps} if isinstance(steps, str) else {"steps": steps}
    sampler = graph.add(
        "Flux2EditSampler", model=applied, positive=text, latent_image=latent, **given
    )
    graph.add("SaveLatent", samples=sampler, filename_prefix="few")
    said = client.run(graph.prompt).check().outputs[sampler]["text"][0]
    assert ("Settings:" in said) == bool(line) and line in said


@pytest.mark.parametrize(
    ("model", "ours", "words"),
    [
        ("dev", dict(preset="klein distilled"),
         "preset is klein distilled and model is FLUX.2 dev. Set preset to dev or dev with Turbo"),
        ("dev", dict(preset="klein base"), "preset is klein base and model is FLUX.2 dev"),
        ("klein", dict(preset=TURBO), f"preset is {TURBO} and model is FLUX.2 klein"),
        ("klein", dict(preset="dev"), "Set preset to klein distilled or klein base, or load"),
        ("klein", dict(preset="klein base"), "whose CFG needs negative. Connect that of FLUX.2"),
        ("dev", dict(sigmas="14.6, 0.5, 0"), "sigmas runs from 14.6 to 0, 3 values"),
        ("dev", dict(sigmas="0.5, 1.0"), "sigmas runs from 0.5 to 1, 2 values"),
        ("dev", dict(sigmas="1.0"), "sigmas has the shape 1; it takes one row of 2 values"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused_names_its_input(client, small_vae, model, ours, words):
    graph, unet, text, latent = start(model, small_vae)
    given = dict(ours)
    if "sigmas" in given:
        given["sigmas"] = graph.add("ManualSigmas", sigmas=given["sigmas"])
    sampler = graph.add("Flux2EditSampler", model=unet, positive=text, latent_image=latent, **given)
    graph.add("SaveLatent", samples=sampler, filename_prefix="refused")
    result = client.run(graph.prompt)
    assert result.status == "error" and result.error.node_id == sampler
    assert words in result.error.message
    assert re.match(r"(preset|sigmas) ", result.error.message), result.error.message
