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
