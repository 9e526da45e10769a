"""The toy FLUX.2 edits: what is in the picture follows from prompt, references, LoRAs, schedule.

What random weights can never show. All pictures come out of our nodes on the real host.
"""

import functools
import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from graphs import upload
from host.client import Client
from host.demo.graph import installed
from host.graph import Graph

pytestmark = pytest.mark.host

SIDE = 128
MOSAIC, DUOTONE = "toy-mosaic.safetensors", "toy-duotone.safetensors"
names = itertools.count()


@pytest.fixture(scope="module")
def studio(server, host_version, base):
    """Makes a picture, [128, 128, 3] in 0..1, of what it is asked for; the same asked twice is one
    run."""
    if host_version < (0, 24):
        pytest.skip("this ComfyUI has no taef2")
    return Studio(server, base / "input")


class Studio:
    def __init__(self, server, folder):
        self.server, self.photos = server, {}
        for name in ("astronaut", "cat"):
            with Image.open(folder / f"{name}.png") as photo:
                self.photos[name] = photo.convert("RGB").resize((SIDE, SIDE))

    def photo(self, name):
        return np.asarray(self.photos[name]) / 255

    @functools.cache  # noqa: B019  (one studio a module)
    def edit(
        self, prompt, images=("astronaut", "cat"), loras=(), *, kind="klein", steps=4, guidance=1.0,
        cfg=False, sigmas="", method="", preset="as set",
    ):  # fmt: skip
        graph = Graph()
        pictures = {f"image_{n}": self._load(graph, name) for n, name in enumerate(images, 1)}
        self._build(
            graph, prompt, pictures, loras, kind=kind, steps=steps, guidance=guidance, cfg=cfg,
            sigmas=sigmas, method=method, preset=preset,
        )  # fmt: skip
        return self._run(graph)

    def round_trip(self, name):
        """A photograph through the autoencoder alone."""
        graph = Graph()
        vae = graph.add("VAELoader", vae_name="taef2")
        samples = graph.add("VAEEncode", pixels=self._load(graph, name), vae=vae)
        pixels = graph.add("VAEDecode", samples=samples, vae=vae)
        graph.add("SaveImage", images=pixels, filename_prefix=f"toy{next(names)}")
        return self._run(graph)

    def _load(self, graph, name):
        with Client(self.server.url) as client:
            return graph.add(
                "LoadImage", image=upload(client, f"toy-{name}.png", self.photos[name])
            )

    def _run(self, graph):
        with Client(self.server.url) as client:
            (image,) = client.run(graph.prompt).check().images()
            with Image.open(io.BytesIO(client.view(image))) as picture:
                return np.asarray(picture.convert("RGB")) / 255

    def _build(
        self, graph, prompt, pictures, loras, *, kind, steps, guidance, cfg, sigmas, method, preset
    ):  # fmt: skip
        model = graph.add(
            "UNETLoader", unet_name=f"flux2-toy-{kind}.safetensors", weight_dtype="default"
        )
        clip = graph.add("CLIPLoader", clip_name="toy-words.safetensors", type="flux2")
        vae = graph.add("VAELoader", vae_name="taef2")
        if loras:
            stack = graph.add("Flux2EditLoraStack", **installed(loras))
            model = graph.add("Flux2EditApplyLoraStack", model=model, lora_stack=stack)
        said = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=prompt, **pictures)
        positive = said.out(0)
        if method:
            positive = graph.add(
                "FluxKontextMultiReferenceLatentMethod",
                conditioning=positive,
                reference_latents_method=method,
            )
        size = graph.add("EmptyFlux2LatentImage", width=SIDE, height=SIDE, batch_size=1)
        own = {"sigmas": graph.add("ManualSigmas", sigmas=sigmas)} if sigmas else {}
        samples = graph.add(
            "Flux2EditSampler", model=model, positive=positive, latent_image=size, seed=5,
            steps=steps, guidance=guidance, preset=preset, **own,
            **({"negative": said.out(1)} if cfg else {}),
        )  # fmt: skip
        pixels = graph.add("VAEDecode", samples=samples, vae=vae)
        graph.add("SaveImage", images=pixels, filename_prefix=f"toy{next(names)}")


def psnr(one, other):
    return -10 * math.log10(max(float(((one - other) ** 2).mean()), 1e-12))


def luma(picture):
    return picture @ [0.299, 0.587, 0.114]


def colour(picture):
    """How far the pixels are from grey."""
    return float((picture.max(-1) - picture.min(-1)).mean())


def warmth(picture):
    return float((picture[..., 0] - picture[..., 2]).mean())


def roughness(picture):
    """What is left of detail within cells of 8x8 pixels."""
    cells = luma(picture).reshape(SIDE // 8, 8, SIDE // 8, 8)
    return float(cells.std((1, 3)).mean())


def test_an_empty_wish_gives_the_reference_back(studio):
    """As the autoencoder alone does, within a tenth of a decibel."""
    photo, plain = studio.photo("astronaut"), studio.edit("image 1")
    there_and_back = studio.round_trip("astronaut")
    assert psnr(plain, photo) == pytest.approx(psnr(there_and_back, photo), abs=0.1)
    assert psnr(plain, there_and_back) > 40


def test_the_number_in_the_prompt_is_the_sockets(studio):
    one, two = studio.edit("image 1"), studio.edit("image 2")
    assert psnr(two, studio.photo("cat")) > 22
    assert psnr(one, two) < 12
    swapped = ("cat", "astronaut")
    assert psnr(studio.edit("image 1", swapped), two) > 40
    assert psnr(studio.edit("image 2", swapped), one) > 40


def test_an_edit_of_both_depends_on_their_order(studio):
    prompt = "image 1 in the colours of image 2"
    one, other = studio.edit(prompt), studio.edit(prompt, ("cat", "astronaut"))
    assert psnr(one, other) < 12
    # The light is that of image 1, the colours are not.
    assert psnr(luma(one), luma(studio.photo("astronaut"))) > 22
    assert psnr(one, studio.photo("astronaut")) < 20
    both = studio.edit("image 1 and image 2")
    assert psnr(both, (studio.edit("image 1") + studio.edit("image 2")) / 2) > 22


def test_each_prompt_is_an_edit_of_its_own(studio):
    plain = studio.edit("image 1")
    edits = {
        word: studio.edit(f"image 1 {word}")
        for word in ("in monochrome", "at sunset", "at night", "in winter", "as a sketch")
    }
    for one, other in itertools.combinations([plain, *edits.values()], 2):
        assert psnr(one, other) < 22
    assert colour(edits["in monochrome"]) < 0.3 * colour(plain)
    assert warmth(edits["at sunset"]) > warmth(plain) + 0.1
    assert luma(edits["at night"]).mean() < luma(plain).mean() - 0.15
    assert luma(edits["in winter"]).mean() > luma(plain).mean() + 0.03
    assert luma(edits["as a sketch"]).mean() > luma(plain).mean() + 0.1


@pytest.mark.parametrize("lora", [MOSAIC, DUOTONE])
def test_a_lora_shows_by_its_scale(studio, lora):
    prompt = "image 1 at sunset"
    plain = studio.edit(prompt)
    none, half, full = (studio.edit(prompt, loras=((lora, s),)) for s in (0.0, 0.5, 1.0))
    assert (none == plain).all()
    assert psnr(plain, full) < 22
    way = np.abs(half - plain).mean() / np.abs(full - plain).mean()
    assert 0.35 < way < 0.65
    assert psnr(half, (plain + full) / 2) > psnr(half, plain) + 3


def test_both_loras_do_what_each_does(studio):
    prompt = "image 1"
    plain, mosaic, duotone, both = (
        studio.edit(prompt, loras=loras)
        for loras in ((), ((MOSAIC, 1.0),), ((DUOTONE, 1.0),), ((MOSAIC, 1.0), (DUOTONE, 1.0)))
    )
    assert roughness(mosaic) < 0.5 * roughness(plain) and roughness(duotone) > 0.7 * roughness(
        plain
    )
    assert roughness(both) < 0.5 * roughness(plain)
    # Gold where it is light, blue where it is dark.
    for picture, least in ((duotone, 0.1), (both, 0.1)):
        light, dark = luma(plain) > 0.7, luma(plain) < 0.2
        assert warmth(picture[light][None]) > least and warmth(picture[dark][None]) < -least
    assert abs(warmth(plain[luma(plain) < 0.2][None])) < 0.1
    assert min(psnr(both, other) for other in (plain, mosaic, duotone)) < 20


def test_few_steps_leave_dev_soft_and_klein_sharp(studio):
    plain = studio.photo("astronaut")
    klein = [psnr(studio.edit("image 1", steps=steps), plain) for steps in (1, 2, 4)]
    assert klein[0] + 1 < klein[1] and klein[1] + 1 < klein[2]
    dev = [
        psnr(studio.edit("image 1", kind="dev", steps=steps, guidance=2.5), plain)
        for steps in (4, 8, 28)
    ]
    assert dev[0] + 0.5 < dev[1] and dev[1] + 0.5 < dev[2]
    assert abs(dev[2] - klein[2]) < 0.5
    turbo = studio.edit("image 1", kind="dev", preset="dev with Turbo LoRA")
    assert abs(psnr(turbo, plain) - dev[2]) < 0.5


def test_a_schedule_that_does_not_end_at_0_leaves_that_much_noise(studio):
    whole = studio.edit("image 1", sigmas="1, 0.9, 0.7, 0")
    assert psnr(whole, studio.edit("image 1")) > 30
    left = [studio.edit("image 1", sigmas=f"1, 0.9, 0.7, {end}") for end in (0.1, 0.3, 0.6)]
    far = [psnr(picture, whole) for picture in left]
    assert far[0] > far[1] + 3 > far[2] + 6


def test_guidance_is_how_strongly_an_edit_is_meant(studio):
    plain = warmth(studio.edit("image 1", kind="dev", steps=8, guidance=2.5))
    warm = [
        warmth(studio.edit("image 1 at sunset", kind="dev", steps=8, guidance=guidance)) - plain
        for guidance in (1.25, 2.5, 3.75)
    ]
    assert 0.03 < warm[0] < warm[1] - 0.03 < warm[2] - 0.06
    cfg = warmth(studio.edit("image 1 at sunset", guidance=1.5, cfg=True))
    assert cfg > warmth(studio.edit("image 1 at sunset")) + 0.03


def test_references_are_found_where_flux2_puts_them_and_nowhere_else(studio):
    plain = studio.edit("image 1")
    assert (studio.edit("image 1", method="index") == plain).all()
    assert psnr(studio.edit("image 1", method="offset"), plain) < 15


def test_without_a_reference_it_paints_a_sky(studio):
    sky = studio.edit("a lighthouse", ())
    assert (sky.std(1) < 0.02).all(), "the same along each line"
    night = studio.edit("a lighthouse at night", ())
    assert luma(night).mean() < luma(sky).mean() - 0.1
    # Asked for a picture that is not there, it does not take the one that is.
    assert psnr(studio.edit("image 2", ("astronaut",)), studio.photo("astronaut")) < 15
