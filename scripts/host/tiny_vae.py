"""Tiny random VAEs that the stock ComfyUI loaders accept: AutoencoderKL and taef1.

Shapes: ComfyUI ``comfy/ldm/modules/diffusionmodules/model.py`` and ``comfy/taesd/taesd.py``.
"""

import torch

from .tiny import Random, Weights

# Both are fixed in the host's loader for an AutoencoderKL.
ENCODER_WIDTH = 128
WIDTH_FACTORS = (1, 2, 4, 4)
LATENT_CHANNELS = 32


class Layers:
    """A state dict under construction: convolutions with random weights, norms that do nothing."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.random = Random(seed, dtype)
        self.weights: Weights = {}

    def conv(self, name: str, into: int, out: int, size: int = 3, bias: bool = True) -> None:
        self.weights[f"{name}.weight"] = self.random.normal(name, (out, into, size, size))
        if bias:
            self.weights[f"{name}.bias"] = self.random.zeros(out)

    def norm(self, name: str, channels: int) -> None:
        self.weights[f"{name}.weight"] = self.random.ones(channels)
        self.weights[f"{name}.bias"] = self.random.zeros(channels)

    def resnet(self, name: str, into: int, out: int) -> None:
        self.norm(f"{name}.norm1", into)
        self.conv(f"{name}.conv1", into, out)
        self.norm(f"{name}.norm2", out)
        self.conv(f"{name}.conv2", out, out)
        if into != out:
            self.conv(f"{name}.nin_shortcut", into, out, size=1)

    def middle(self, name: str, channels: int) -> None:
        self.resnet(f"{name}.block_1", channels, channels)
        self.norm(f"{name}.attn_1.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.attn_1.{part}", channels, channels, size=1)
        self.resnet(f"{name}.block_2", channels, channels)

    def tiny_block(self, name: str) -> None:
        for index in (0, 2, 4):
            self.conv(f"{name}.conv.{index}", 64, 64)


def autoencoder_kl(decoder_width: int = 32, seed: int = 0) -> Weights:
    """FLUX.2's real VAE class, for ``VAELoader``; 75 MB in bfloat16 with the small decoder.

    Hosts before 0.20 know the full decoder only: ``decoder_width=128``.
    """
    layers = Layers(seed, torch.bfloat16)
    widths = [ENCODER_WIDTH * factor for factor in WIDTH_FACTORS]
    layers.conv("encoder.conv_in", 3, widths[0])
    into = widths[0]
    for level, out in enumerate(widths):
        for block in range(2):
            layers.resnet(f"encoder.down.{level}.block.{block}", into, out)
            into = out
        if level < len(widths) - 1:
            layers.conv(f"encoder.down.{level}.downsample.conv", out, out)
    layers.middle("encoder.mid", into)
    layers.norm("encoder.norm_out", into)
    layers.conv("encoder.conv_out", into, 2 * LATENT_CHANNELS)

    widths = [decoder_width * factor for factor in WIDTH_FACTORS]
    into = widths[-1]
    layers.conv("decoder.conv_in", LATENT_CHANNELS, into)
    layers.middle("decoder.mid", into)
    for level in reversed(range(len(widths))):
        for block in range(3):
            layers.resnet(f"decoder.up.{level}.block.{block}", into, widths[level])
            into = widths[level]
        if level:
            layers.conv(f"decoder.up.{level}.upsample.conv", into, into)
    layers.norm("decoder.norm_out", into)
    layers.conv("decoder.conv_out", into, 3)
    layers.conv("quant_conv", 2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, size=1)
    layers.conv("post_quant_conv", LATENT_CHANNELS, LATENT_CHANNELS, size=1)
    # Batch norm over the 2x2-patchified latent: what tells FLUX.2's VAE from FLUX.1's.
    layers.weights["bn.running_mean"] = torch.zeros(4 * LATENT_CHANNELS)
    layers.weights["bn.running_var"] = torch.ones(4 * LATENT_CHANNELS)
    return layers.weights


def taef1(part: str, seed: int = 0) -> Weights:
    """Half of FLUX.1's tiny autoencoder, 16 channels: ``part`` is "encoder" or "decoder"."""
    layers = Layers(seed, torch.float32)
    if part == "encoder":
        layers.conv("0", 3, 64)
        for index in (2, 6, 10):
            layers.conv(str(index), 64, 64, bias=False)
        blocks = (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
        layers.conv("14", 64, 16)
    elif part == "decoder":
        layers.conv("1", 16, 64)
        for index in (7, 12, 17):
            layers.conv(str(index), 64, 64, bias=False)
        blocks = (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)
        layers.conv("19", 64, 3)
        # It puts out 0..1: centre the noise there, or half of the picture is black.
        layers.weights["19.bias"].fill_(0.5)
    else:
        raise ValueError(f"part must be encoder or decoder, not {part!r}")
    for index in blocks:
        layers.tiny_block(str(index))
    return layers.weights
