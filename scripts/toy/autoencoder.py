"""The toy's autoencoder for the stock ``taef2``, by construction: this is the encoder.

Everything between two convolutions of the stock encoder is relu(conv(x) + x): what is not negative
passes unchanged where the convolutions are 0. Pixels are not; three convolutions of stride 2 gather
each cell of 8x8 into channels, the last of them as the cosines of ``latent`` and their negatives,
and the final one takes each from its negative.

Keys and shapes: ComfyUI ``comfy/taesd/taesd.py``.
"""

import torch

from host.tiny import Weights

from . import latent
from .decoder import WIDTH, decoder, silent

__all__ = ["decoder", "encoder"]

BLOCKS = (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
# Blocks at an eighth of the size have a pooling branch too.
POOLED = (11, 12, 13)


def encoder() -> Weights:
    """``taef2_encoder``: exactly ``latent.encode``, for pixels in 0..1. float32."""
    weights = silent((2, 6, 10), BLOCKS, POOLED)
    weights["0.weight"] = torch.zeros(WIDTH, 3, 3, 3)
    weights["0.bias"] = torch.zeros(WIDTH)
    for colour in range(3):
        weights["0.weight"][colour, colour, 1, 1] = 1
    # Of each two pixels the second tap of three lies on the first, the third on the second.
    for name, channels in (("2", 3), ("6", 12)):
        for channel in range(channels):
            for y in range(2):
                for x in range(2):
                    weights[f"{name}.weight"][4 * channel + 2 * y + x, channel, 1 + y, 1 + x] = 1
    cosines = _cosines()
    weights["10.weight"][:, :48, 1:, 1:] = torch.cat([cosines, -cosines])
    unit = torch.eye(latent.CHANNELS)
    weights["14.weight"] = torch.zeros(latent.CHANNELS, WIDTH, 3, 3)
    weights["14.weight"][:, :, 1, 1] = torch.cat([unit, -unit], 1)
    weights["14.bias"] = torch.zeros(latent.CHANNELS)
    # Luma is centred: every pixel of the cell gives its part to the mean alone.
    weights["14.bias"][0] = -latent.LUMA_CENTRE * latent.CELL * latent.GAINS[0]
    return weights


def _cosines() -> torch.Tensor:
    """[32, 48, 2, 2]: the last of three halvings, from the channels that the first two gathered.

    A pixel (y, x) of the cell is bits: the lowest pair was gathered first, the highest is left to
    this convolution.
    """
    maps = torch.zeros(latent.CHANNELS, 3, 2, 2, 2, 2, 2, 2)
    for channel, (plane, (v, u)) in enumerate(zip(latent.PLANES, latent.COSINES, strict=True)):
        wave = torch.outer(latent.WAVES[v], latent.WAVES[u]) * latent.GAINS[channel]
        # [high y, middle y, low y, high x, middle x, low x]
        bits = wave.reshape(2, 2, 2, 2, 2, 2)
        for colour in range(3):
            # The channels' order: colour, then the first halving's (y, x), then the second's.
            maps[channel, colour] = bits.permute(2, 5, 1, 4, 0, 3) * latent.YCC[plane, colour]
    return maps.reshape(latent.CHANNELS, 48, 2, 2)
