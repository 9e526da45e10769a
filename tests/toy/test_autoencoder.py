"""The toy's autoencoder in the host's own class, loaded as the stock VAELoader does."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from toy import autoencoder, latent

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

# Decibels of the round trip, a little below what it has.
DEMO = {"astronaut.png": 31, "chelsea.png": 34.5}


@pytest.fixture(scope="module")
def vae(comfy_inprocess, tmp_path_factory):
    """What ``VAELoader`` gives for taef2 from a models folder with our two files."""
    import folder_paths
    import nodes

    if "taef2" not in nodes.VAELoader.image_taes:
        pytest.skip("this ComfyUI has no taef2 yet")
    folder = tmp_path_factory.mktemp("vae_approx")
    save_file(autoencoder.encoder(), folder / "taef2_encoder.safetensors")
    save_file(autoencoder.decoder(), folder / "taef2_decoder.safetensors")
    folders = folder_paths.folder_names_and_paths
    before = folders["vae_approx"]
    folders["vae_approx"] = ([str(folder)], before[1])
    try:
        yield nodes.VAELoader().load_vae("taef2")[0]
    finally:
        folders["vae_approx"] = before


def photo(name: str) -> torch.Tensor:
    """[1, H, W, 3] in 0..1, cut to multiples of 16."""
    from skimage import data_dir

    with Image.open(f"{data_dir}/{name}") as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
    return pixels[None, : pixels.shape[0] // 16 * 16, : pixels.shape[1] // 16 * 16]


def psnr(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return -10 * torch.log10((ours.clamp(0, 1) - wanted.clamp(0, 1)).square().mean()).item()


def swapped(pixels: torch.Tensor) -> torch.Tensor:
    """Cb for Cr: what an edit of colours may ask for, and what a wrong channel looks like."""
    return pixels @ latent.YCC.T[:, [0, 2, 1]] @ torch.linalg.inv(latent.YCC).T


EDITS = {
    "grey": lambda planes: planes * planes.new_tensor([1, 0, 0]),
    "negative": lambda planes: -planes,
    "warm night": lambda planes: planes * 0.5 + planes.new_tensor([-0.1, -0.05, 0.1]),
}
"""Of luma (centred) and chroma, [..., 3]."""


def edited(pixels: torch.Tensor, name: str) -> torch.Tensor:
    centre = pixels.new_tensor([latent.LUMA_CENTRE, 0, 0])
    return (EDITS[name](pixels @ latent.YCC.T - centre) + centre) @ torch.linalg.inv(latent.YCC).T


def tokens(cells: torch.Tensor) -> torch.Tensor:
    """[B, 32, 2h, 2w] as FLUX.2's latent: the other way of ``cells``."""
    batch, _, height, width = cells.shape
    parts = cells.reshape(batch, latent.CHANNELS, height // 2, 2, width // 2, 2)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(batch, 128, height // 2, width // 2)


def round_trip(vae, pixels: torch.Tensor) -> torch.Tensor:
    """The stock VAE Encode and VAE Decode."""
    import nodes

    samples = nodes.VAEEncode().encode(vae, pixels)[0]
    return nodes.VAEDecode().decode(vae, samples)[0]


def cells(samples: torch.Tensor) -> torch.Tensor:
    """FLUX.2's latent [B, 128, h, w] as the cells of ``latent``: [B, 32, 2h, 2w]."""
    batch, _, height, width = samples.shape
    parts = samples.reshape(batch, latent.CHANNELS, 2, 2, height, width)
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, latent.CHANNELS, 2 * height, 2 * width)


@pytest.mark.parametrize("name", DEMO)
def test_the_encoder_is_the_cosines(vae, name):
    pixels = photo(name)
    latents = cells(vae.encode(pixels).float().cpu())
    assert latents.shape == (1, 32, pixels.shape[1] // 8, pixels.shape[2] // 8)
    assert (latents - latent.encode(pixels)).abs().max() < 1e-5


def test_the_cosines_are_those_of_scipy():
    from scipy.fft import dctn

    cell = np.random.default_rng(1).random((8, 8))
    ours = latent.encode(torch.from_numpy(cell)[None, :, :, None].expand(1, 8, 8, 3))[0, :, 0, 0]
    theirs = dctn(cell - 0.5, norm="ortho")
    for channel, (v, u) in enumerate(latent.COSINES[: latent.LUMA]):
        assert ours[channel] / latent.GAINS[channel] == pytest.approx(theirs[v, u], abs=1e-6)
    # Grey has no chroma.
    assert ours[latent.LUMA :].abs().max() < 1e-5


@pytest.mark.parametrize("name", DEMO)
def test_a_photograph_stays_itself(vae, name):
    pixels = photo(name)
    back = round_trip(vae, pixels)
    assert back.shape == pixels.shape
    assert psnr(back, pixels) >= DEMO[name]
    # The gate can fail: colours in the wrong channel are far outside of it.
    assert psnr(round_trip(vae, swapped(pixels).clamp(0, 1)), pixels) < 24


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_in_the_latent_is_one_of_the_picture(vae, name):
    """What the toy relies on: a matrix on the channels, no encoder behind it."""
    pixels = photo("chelsea.png")[:, :128, :128]
    wanted = edited(pixels, name)
    assert psnr(vae.decode(tokens(latent.encode(wanted))), wanted) >= 32
    assert psnr(pixels, wanted) < 25


def test_flat_cells_stay_flat(vae):
    """Neighbours that are the same tell no child which one it is: there is nothing to split."""
    pixels = photo("chelsea.png")[:, :128, :128]
    mosaic = pixels[:, 8::16, 8::16].repeat_interleave(16, 1).repeat_interleave(16, 2)
    assert psnr(round_trip(vae, mosaic), mosaic) > 50
    white = torch.ones(1, 64, 64, 3)
    assert (round_trip(vae, white) - white).abs().max() < 0.01


def test_where_the_host_decodes_in_bfloat16(vae):
    """As it does on a GPU: 8 bits for a value and its offset."""
    import comfy.sd

    halves = {"encoder": autoencoder.encoder(), "decoder": autoencoder.decoder()}
    weights = {f"taesd_{part}.{key}": w for part, half in halves.items() for key, w in half.items()}
    coarse = comfy.sd.VAE(weights, metadata={"tae_latent_channels": 128}, dtype=torch.bfloat16)
    pixels = photo("chelsea.png")[:, :128, :128]
    assert coarse.vae_dtype == torch.bfloat16
    assert psnr(round_trip(coarse, pixels), pixels) >= 26
