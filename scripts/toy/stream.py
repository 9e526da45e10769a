"""Where things stand in the toy's stream, and how weights are written into its layers."""

import math

import torch

from host.tiny import Weights

HIDDEN, HEAD, MLP = 384, 128, 3 * 384
DOUBLE, SINGLE = 3, 2
# Channels of the stream. IMAGE is the token as it came in, MEANT the picture that is meant.
IMAGE, MEANT = slice(0, 128), slice(128, 256)
CHOSEN = slice(256, 259)  # how much of reference 1, 2, 3 the prompt means
WISHED = slice(259, 275)  # each edit's share of the prompt's edit words
WANTED = slice(275, 291)  # the same as 0 or 1
PALETTE = slice(291, 339)  # colours of reference 2
PLUS, MINUS, ONE = 381, 382, 383
LARGE = 400.0
# What a layer norm divides by: the two large channels over all, and next to nothing else.
NORM = LARGE * math.sqrt(2 / HIDDEN)
WORD = math.sqrt(HIDDEN / 2)  # what a layer norm makes of a text token's only channel
SHARP = 8.0  # scale of the normalised queries and keys: attention decides
STEEP = 20.0  # gates: silu(20 a) is 20 a for a = 1 and nothing for a = 0


def balance(weight: torch.Tensor) -> torch.Tensor:
    """Make a write into the stream sum to 0 over the channels, in place, at ONE's cost."""
    weight[ONE] -= weight.sum(0)
    return weight


class Units:
    """Gated units of one MLP, taken one after the other: ``out * silu(gate) * up``."""

    def __init__(self, w: Weights, prefix: str) -> None:
        self.inward, self.outward = w[f"{prefix}.0.weight"], w[f"{prefix}.2.weight"]
        self.taken = 0

    def add(self, gate: dict[int, float], up: dict[int, float], out: dict[int, float]) -> None:
        for half, reads in ((0, gate), (MLP, up)):
            for channel, value in reads.items():
                self.inward[half + self.taken, channel] = value
        for channel, value in out.items():
            self.outward[channel, self.taken] = value
        self.taken += 1

    def map(self, gate: dict[int, float], matrix: torch.Tensor, source: slice, into: slice) -> None:
        """``into += silu(gate) * matrix @ source``, one unit for each row that is not zero."""
        for row in matrix.abs().sum(1).nonzero().flatten().tolist():
            for channel, value in gate.items():
                self.inward[self.taken, channel] = value
            self.inward[MLP + self.taken, source] = matrix[row]
            self.outward[into.start + row, self.taken] = 1
            self.taken += 1


class Heads:
    """Queries, keys and values of one attention layer, by head."""

    def __init__(self, qkv: torch.Tensor) -> None:
        self.parts = qkv[: 3 * HIDDEN].view(3, HIDDEN // HEAD, HEAD, HIDDEN)

    def query(self, head: int) -> torch.Tensor:
        return self.parts[0, head]

    def key(self, head: int) -> torch.Tensor:
        return self.parts[1, head]

    def value(self, head: int) -> torch.Tensor:
        return self.parts[2, head]


def direction(axis: int, pairs: range, position: float = 0.0) -> torch.Tensor:
    """[128]: what RoPE makes of a constant at ``position`` on ``axis`` (t, y, x, text)."""
    vector = torch.zeros(HEAD)
    for pair in pairs:
        angle = position * 2000 ** (-pair / 16)
        vector[32 * axis + 2 * pair] = math.cos(angle)
        vector[32 * axis + 2 * pair + 1] = math.sin(angle)
    return vector


# Fast enough to tell neighbours apart, and the slowest, which no position turns.
PLACE = direction(1, range(5)) + direction(2, range(5))
STILL, ASIDE = direction(0, range(13, 14)), direction(0, range(15, 16))
REFERENCES = torch.stack([direction(0, range(6), 10.0 * (k + 1)) for k in range(3)])
# Turned by a third of a circle over 1500 pixels; the land's key lies 0.9 rad, 640 pixels, lower.
HEIGHT, GROUND = direction(1, range(8, 9)), direction(1, range(8, 9), 40.0)
SURE = math.sqrt(5.0)  # weight of "which reference" beside "which place"
