"""The toy's latent: 32 cosines of every 8x8 cell of a picture, known in closed form.

Luma and chroma (BT.601, full range) go through the orthonormal DCT-II of JPEG; the 20 lowest
cosines of luma and the 6 lowest of each chroma are kept, in JPEG's zigzag order. The latent is
linear in the picture, so an edit of colours or of detail is a matrix on its channels.
"""

import math

import torch

CELL = 8
"""Pixels on a side of the cell that one place of the latent holds."""
LUMA, CHROMA = 20, 6
CHANNELS = LUMA + 2 * CHROMA
"""Luma's cosines, then those of Cb, then those of Cr."""

_KINDS = ((LUMA, (0.5, 2.0, 4.0, 6.0, 8.0, 10.0)), (CHROMA, (1.0, 8.0, 14.0)))


def _zigzag(count: int) -> list[tuple[int, int]]:
    """The first ``count`` (vertical, horizontal) cosines as JPEG orders them."""
    every = ((v, h) for v in range(CELL) for h in range(CELL))
    return sorted(every, key=lambda p: (sum(p), p[0] if sum(p) % 2 else p[1]))[:count]


COSINES = _zigzag(LUMA) + 2 * _zigzag(CHROMA)
"""(vertical, horizontal) number of half waves of each channel."""
PLANES = [0] * LUMA + [1] * CHROMA + [2] * CHROMA
"""0 luma, 1 Cb, 2 Cr: the plane of each channel."""
# By the degree of the cosine, so that each channel's deviation on photographs is near 0.6, and a
# mean stays within +-2: the stock decoder begins with tanh(x / 3) * 3.
GAINS = torch.tensor(
    [_KINDS[plane > 0][1][sum(cosine)] for cosine, plane in zip(COSINES, PLANES, strict=True)]
)
"""[32]: what a channel's cosine is multiplied with."""

YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]],
)
"""RGB to Y, Cb, Cr; chroma is centred on 0 as it is, luma once 0.5 is taken from it."""
LUMA_CENTRE = 0.5

WAVES = torch.tensor(
    [
        [
            math.sqrt((2 if k else 1) / CELL) * math.cos(math.pi * (2 * n + 1) * k / (2 * CELL))
            for n in range(CELL)
        ]
        for k in range(CELL)
    ]
)
"""[frequency, pixel]: the orthonormal DCT-II."""


def encode(pixels: torch.Tensor) -> torch.Tensor:
    """RGB in 0..1, [B, H, W, 3] with multiples of 8, to the latent [B, 32, H/8, W/8]."""
    batch, height, width, _ = pixels.shape
    planes = pixels @ YCC.to(pixels).T
    planes = planes - planes.new_tensor([LUMA_CENTRE, 0, 0])
    cells = planes.reshape(batch, height // CELL, CELL, width // CELL, CELL, 3)
    waves = WAVES.to(pixels)
    cosines = torch.einsum("bhiwjc,vi,uj->bchwvu", cells, waves, waves)
    kept = [cosines[:, p, :, :, v, u] for p, (v, u) in zip(PLANES, COSINES, strict=True)]
    return torch.stack(kept, 1) * GAINS.to(pixels)[:, None, None]


def decode(latent: torch.Tensor) -> torch.Tensor:
    """The picture whose kept cosines are the latent's and whose others are 0: [B, H, W, 3].

    What training starts from and what an edit means; not clipped to 0..1.
    """
    batch, _, height, width = latent.shape
    scaled = latent / GAINS.to(latent)[:, None, None]
    cosines = latent.new_zeros(batch, 3, height, width, CELL, CELL)
    for channel, (plane, (v, u)) in enumerate(zip(PLANES, COSINES, strict=True)):
        cosines[:, plane, :, :, v, u] = scaled[:, channel]
    waves = WAVES.to(latent)
    planes = torch.einsum("bchwvu,vi,uj->bhiwjc", cosines, waves, waves)
    planes = planes.reshape(batch, height * CELL, width * CELL, 3)
    planes = planes + planes.new_tensor([LUMA_CENTRE, 0, 0])
    return planes @ torch.linalg.inv(YCC).to(latent).T
