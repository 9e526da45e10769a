"""What the toy can do to a picture, as linear maps of FLUX.2's 128 latent channels.

The autoencoder has the lowest cosines of 8x8 pixel cells in luma and chroma, four cells a
token: a recolouring, a sketch or a mosaic is a matrix on them, written down from what it does to
luma and chroma.
"""

from typing import NamedTuple

import torch

from . import latent

CELLS = 4
# Sum and differences of a token's four cells: what is coarse apart from what is fine.
_SUMS = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2.0
BASIS = torch.kron(torch.eye(latent.CHANNELS), _SUMS)
"""[128, 128], orthogonal: the channels of a latent to those that the toy thinks in."""


def _channels(plane: int, cosines: range) -> list[int]:
    """The channels of all cells for some cosines of a plane (0 luma, 1 and 2 chroma)."""
    start = (0, latent.LUMA, latent.LUMA + latent.CHROMA)[plane]
    return [CELLS * (start + cosine) + cell for cosine in cosines for cell in range(CELLS)]


COLOURS = [channel for plane in (1, 2) for channel in _channels(plane, range(latent.CHROMA))]
_COARSE = [CELLS * start for start in (0, latent.LUMA, latent.LUMA + latent.CHROMA)]
_FINE = _channels(0, range(3, latent.LUMA))
_FINE += _channels(1, range(3, latent.CHROMA)) + _channels(2, range(3, latent.CHROMA))
_MIDDLE = [i for i in range(128) if i not in _COARSE and i not in _FINE]
PARTS = (_COARSE, _MIDDLE, _FINE)
"""Which channels are decided first, second and last on the way from noise to a picture."""


class Edit(NamedTuple):
    """x becomes x + change @ x + offset, in the channels of ``BASIS``; [128, 128] and [128]."""

    change: torch.Tensor
    offset: torch.Tensor


def colours(
    planes: list[list[float]], shift: tuple[float, float, float] = (0, 0, 0), detail: float = 1.0
) -> Edit:
    """An edit of colours: luma and chroma of each cosine by the 3x3 matrix ``planes``.

    ``shift`` is added to luma and chroma, in parts of white; ``detail`` multiplies all of luma but
    each cell's mean.
    """
    matrix = torch.zeros(latent.CHANNELS, latent.CHANNELS)
    starts = (0, latent.LUMA, latent.LUMA + latent.CHROMA)
    for into, to in enumerate(starts):
        for source, start in enumerate(starts):
            count = latent.LUMA if into == source == 0 else latent.CHROMA
            for cosine in range(count):
                fine = into == source == 0 and cosine
                matrix[to + cosine, start + cosine] = detail if fine else planes[into][source]
    gains = latent.GAINS
    matrix = matrix * gains[:, None] / gains - torch.eye(latent.CHANNELS)
    offset = torch.zeros(latent.CHANNELS)
    for start, value in zip(starts, shift, strict=True):
        # An 8x8 cell of one value v has 8 v in its first cosine.
        offset[start] = 8 * value * gains[start]
    return Edit(torch.kron(matrix, torch.eye(CELLS)), torch.kron(offset, _SUMS.sum(1)))


def mosaic() -> Edit:
    """One colour a cell: 8x8 pixels."""
    keep = torch.zeros(128)
    keep[[channel for plane in range(3) for channel in _channels(plane, range(1))]] = 1
    return Edit(torch.diag(keep - 1), torch.zeros(128))


EDITS = {
    "monochrome": colours([[1.1, 0, 0], [0, 0, 0], [0, 0, 0]]),
    "sunset": colours([[1.05, 0, 0], [-0.3, 0.5, 0], [0.25, 0, 0.7]], (-0.03, -0.1, 0.1)),
    "night": colours([[0.45, 0, 0], [-0.1, 0.35, 0], [0, 0, 0.35]], (-0.22, 0.07, -0.03)),
    "winter": colours([[0.9, 0, 0], [-0.1, 0.35, 0], [0.05, 0, 0.35]], (0.14, 0.04, -0.02)),
    "sketch": colours([[0.25, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], (0.3, 0, 0), detail=1.6),
}
"""By the word that asks for it; after these comes "colours", which takes those of image 2."""
SKY = colours([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (0.2, 0.1, -0.08)).offset
LAND = colours([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (-0.2, -0.08, 0.02)).offset
"""[128]: the plain colours that the toy paints without a reference."""
DUOTONE = colours([[1.05, 0, 0], [-0.5, 0.1, 0], [0.4, 0, 0.1]], (0, 0.02, 0.0))
