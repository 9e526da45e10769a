"""The weights of a stock ``taef2`` decoder that undoes ``latent.encode``, by construction.

Nearest upsampling gives the four children of a place one value each, and no convolution knows
which child it is at. So the first thing on a level is to find out: a child whose right neighbour
differs is a right one, one whose lower neighbour differs a lower one. With these two bits a gate
splits a cell's cosines in two: what holds for the second half stands, and the difference to the
first is added where the bit is 0. From 8x8 over 4x4 and 2x2 to pixels that is the whole inverse.
Where neighbours do not differ at all the bits are 0, and there is nothing to split.

Every stock block is relu(conv(x) + x): values are kept positive by an offset, and a channel that is
done with is pushed below 0. Keys and shapes: ComfyUI ``comfy/taesd/taesd.py``.
"""

import math

import torch

from host.tiny import Weights

from . import latent

Form = torch.Tensor
"""[65]: a value as a sum of the 64 channels of a layer and a constant, which is last."""
Signals = dict[tuple[int, int, int], Form]
"""(plane, vertical cosine, horizontal cosine) of a cell -> its value."""

WIDTH = 64
BLOCKS = (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)
OFFSET = 8.0
"""Added to every channel of the latent, which is below it in size once unclamped."""
# Added to every cosine of a cell: the root of its pixels holds whatever lies within -0.5..1.5.
# No more than that: where the host decodes in bfloat16, the sum has 8 bits.
OFFSET_8X4, OFFSET_4X4, OFFSET_4X2, OFFSET_2X2, OFFSET_PIXEL = 6.0, 4.0, 3.0, 2.0, 1.0
SHUT = 32.0
"""What closes a gate, or a channel: larger than any difference of two values."""
SHARP = 200.0
"""Neighbours that differ by 2 / SHARP are different, those by 1 / SHARP (rounding) are not."""
# Where the straight pieces of the inverse of tanh(x / 3) * 3 meet, a block each.
KNEES = (0.9, 1.6, 2.2)

# What is kept of a cell's cosines on the way: of 8x8 split across, of 4x4, of 4x4 split across.
ACROSS = [(0, v, u) for v, many in enumerate((4, 4, 4, 4, 2)) for u in range(many)]
ACROSS += [(plane, v, u) for plane in (1, 2) for v in range(3) for u in range(3 - v)]
_LUMA = [(v, u) for v in range(4) for u in range(4) if v + u < 5 and (v, u) != (3, 3)]
QUARTERS = [(0, v, u) for v, u in _LUMA]
QUARTERS += [(plane, v, u) for plane in (1, 2) for v in range(2) for u in range(2)]
QUARTERS_ACROSS = [(0, v, u) for v in range(4) for u in range(2)]
QUARTERS_ACROSS += [(plane, v, u) for plane in (1, 2) for v in range(2) for u in range(2)]
PAIRS = [(plane, v, u) for plane in range(3) for v in range(2) for u in range(2)]
RIGHT, LOWER = 62, 63
"""Channels of the two bits."""


def decoder() -> Weights:
    """``taef2_decoder``: [B, 32, h, w] to [B, 3, 8h, 8w] in 0..1, float32."""
    weights = silent((7, 12, 17), BLOCKS, BLOCKS[:3])
    weights["1.weight"] = torch.zeros(WIDTH, latent.CHANNELS, 3, 3)
    weights["1.bias"] = torch.zeros(WIDTH)
    weights["19.weight"] = torch.zeros(3, WIDTH, 3, 3)
    weights["19.bias"] = torch.zeros(3)
    signals = _unclamp(weights)
    signals = _eighths(weights, signals)
    signals = _quarters(weights, signals)
    _pixels(weights, signals)
    return weights


def _channel(index: int, offset: float) -> Form:
    form = torch.zeros(WIDTH + 1)
    form[index], form[-1] = 1, -offset
    return form


def _waves(size: int) -> torch.Tensor:
    """[frequency, pixel]: the orthonormal DCT-II of ``size``."""
    n = torch.arange(size)
    waves = torch.cos(math.pi * (2 * n + 1) * n[:, None] / (2 * size)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def _halves(signals: Signals, keep: list, size: int, axis: int) -> dict[tuple, tuple[Form, Form]]:
    """Each kept cosine of half a cell: (its value in the second half, what the first has more).

    ``axis`` 2 splits across, 1 down; ``size`` is the cell's before.
    """
    half = size // 2
    first = _waves(half) @ _waves(size)[:, :half].T
    second = _waves(half) @ _waves(size)[:, half:].T
    found = {}
    for key in keep:
        values = [torch.zeros(WIDTH + 1), torch.zeros(WIDTH + 1)]
        for source, form in signals.items():
            if all(source[i] == key[i] for i in range(3) if i != axis):
                for value, part in zip(values, (first, second), strict=True):
                    value += part[key[axis], source[axis]] * form
        found[key] = (values[1], values[0] - values[1])
    return found


class _Block:
    """The three convolutions of a block, filled unit by unit; they look at one place only."""

    def __init__(self, weights: Weights, index: int) -> None:
        self.weights, self.index = weights, index
        self.units = [0, 0]

    def _put(self, layer: int, row: int, form: Form) -> None:
        self.weights[f"{self.index}.conv.{layer}.weight"][row, :, 1, 1] += form[:-1]
        self.weights[f"{self.index}.conv.{layer}.bias"][row] += form[-1]

    def first(self, form: Form) -> int:
        """relu(form of the trunk); the unit's number."""
        self._put(0, self.units[0], form)
        self.units[0] += 1
        return self.units[0] - 1

    def second(self, form: Form) -> int:
        """relu(form of the first units); the unit's number."""
        self._put(2, self.units[1], form)
        self.units[1] += 1
        return self.units[1] - 1

    def through(self, form: Form) -> int:
        """relu(form of the trunk), among the second units."""
        return self.second(_channel(self.first(form), 0))

    def add(self, channel: int, unit: int, factor: float = 1.0) -> None:
        """A second unit onto a channel of the trunk."""
        self._put(4, channel, factor * _channel(unit, 0))

    def clear(self, channels: range) -> None:
        for channel in channels:
            self.weights[f"{self.index}.conv.4.bias"][channel] -= SHUT

    def offset(self, channel: int, value: float) -> None:
        self.weights[f"{self.index}.conv.4.bias"][channel] += value


def _constant(value: float) -> Form:
    form = torch.zeros(WIDTH + 1)
    form[-1] = value
    return form


def _unclamp(weights: Weights) -> Signals:
    """Level 1/8: the inverse of the clamp, in straight pieces."""
    grid = torch.linspace(-2.7, 2.7, 1001, dtype=torch.float64)
    wanted = 3 * torch.atanh(grid / 3)
    pieces = [grid] + [(grid - k).relu() - (-grid - k).relu() for k in KNEES]
    # Small values are the frequent ones.
    frequent = torch.exp(-wanted.abs() / 0.7).sqrt()[:, None] + 0.02
    slopes = (
        torch.linalg.lstsq(torch.stack(pieces, 1) * frequent, wanted[:, None] * frequent)
        .solution[:, 0]
        .tolist()
    )
    signals: Signals = {}
    keys = list(zip(latent.PLANES, latent.COSINES, strict=True))
    for channel, (plane, cosine) in enumerate(keys):
        straight = latent.CHANNELS + channel
        weights["1.weight"][channel, channel, 1, 1] = 1
        weights["1.bias"][channel] = 3
        weights["1.weight"][straight, channel, 1, 1] = slopes[0]
        weights["1.bias"][straight] = OFFSET
        signals[(plane, *cosine)] = _channel(straight, OFFSET) / latent.GAINS[channel]
    for index, knee, slope in zip((3, 4, 5), KNEES, slopes[1:], strict=True):
        block = _Block(weights, index)
        for channel in range(latent.CHANNELS):
            value = _channel(channel, 3)
            for sign in (1, -1):
                unit = block.through(sign * value - _constant(knee))
                block.add(latent.CHANNELS + channel, unit, sign * slope)
    return signals


def _gate(block: _Block, channel: int, more: Form, shut: Form, second: bool = False) -> None:
    """Adds ``more`` to a channel where ``shut`` is 0, nothing where it is ``SHUT``."""
    for sign in (1, -1):
        unit = (block.second if second else block.through)(sign * more - shut)
        block.add(channel, unit, sign)


def _eighths(weights: Weights, signals: Signals) -> Signals:
    """Level 1/4: the bits, then cells of 8x8 split across and down into 4x4."""
    count, probes = latent.CHANNELS, 6
    conv = weights["7.weight"]
    for channel in range(count):
        conv[channel, count + channel, 1, 1] = 1
    # Anything in which two cells may differ, mixed at random.
    random = torch.Generator().manual_seed(0)
    mixed = torch.randn(probes, count, generator=random) / 4
    differences = {}
    for bit, (y, x) in ((RIGHT, (1, 2)), (LOWER, (2, 1))):
        differences[bit] = range(count + probes * (bit - RIGHT), count + probes * (bit - RIGHT + 1))
        for channel, mix in zip(differences[bit], mixed, strict=True):
            conv[channel, count : 2 * count, 1, 1] = mix
            conv[channel, count : 2 * count, y, x] = -mix
    signals = {
        key: torch.cat([form[count:-1], form[:count], form[-1:]]) for key, form in signals.items()
    }

    block = _Block(weights, 8)
    for bit, channels in differences.items():
        # Above 1 where they are the same; the block's own relu makes 0 of what is left then.
        same = _constant(2.0)
        for channel in channels:
            for sign in (1, -1):
                unit = block.first(sign * _channel(channel, 0))
                same = same - SHARP * _channel(unit, 0)
                # Taken off again: the channel is to hold something else.
                block.add(channel, block.second(_channel(unit, 0)), -sign)
        block.add(bit, block.second(same), -1)
        block.offset(bit, 1)
    split = _halves(signals, ACROSS, 8, axis=2)
    across = {key: count + index for index, key in enumerate(ACROSS)}
    for key, (value, _) in split.items():
        block.add(across[key], block.through(value + _constant(OFFSET_8X4)))

    block = _Block(weights, 9)
    for key, (_, more) in split.items():
        _gate(block, across[key], more, SHUT * _channel(RIGHT, 0))
    block.clear(range(count))
    signals = {key: _channel(channel, OFFSET_8X4) for key, channel in across.items()}
    return _down(_Block(weights, 10), signals, QUARTERS, 8, OFFSET_4X4)


def _down(block: _Block, signals: Signals, keep: list, size: int, offset: float) -> Signals:
    """Cells split down, from the second half of the channels to those from 0; the bit is known."""
    split = _halves(signals, keep, size, axis=1)
    for channel, (value, more) in enumerate(split.values()):
        block.add(channel, block.through(value + _constant(offset)))
        _gate(block, channel, more, SHUT * _channel(LOWER, 0))
    block.clear(range(WIDTH // 2, WIDTH // 2 + len(signals)))
    return {key: _channel(channel, offset) for channel, key in enumerate(split)}


def _bits(weights: Weights, conv: str, block: _Block, count: int) -> dict[int, Form]:
    """``count`` channels pass an upsampling; so do the bits of the level before.

    They change from each place to the next, so that a child differs from its right or lower
    neighbour where it is the second. Forms of the block's first units, 1 or 0.
    """
    for channel in range(count):
        weights[f"{conv}.weight"][channel, channel, 1, 1] = 1
    bits = {}
    for bit, (y, x) in ((RIGHT, (1, 2)), (LOWER, (2, 1))):
        weights[f"{conv}.weight"][bit - 2, bit, 1, 1] = 1
        weights[f"{conv}.weight"][bit - 2, bit, y, x] = -1
        change = _channel(bit - 2, 0)
        bits[bit] = _channel(block.first(change), 0) + _channel(block.first(-change), 0)
    block.clear(range(RIGHT - 2, RIGHT))
    return bits


def _quarters(weights: Weights, signals: Signals) -> Signals:
    """Level 1/2: cells of 4x4 to 2x2."""
    block = _Block(weights, 13)
    bits = _bits(weights, "12", block, len(signals))
    signals = _passed(block, signals, OFFSET_4X4)
    new = range(WIDTH // 2, WIDTH // 2 + len(QUARTERS_ACROSS))
    split = _halves(signals, QUARTERS_ACROSS, 4, axis=2)
    for channel, (value, more) in zip(new, split.values(), strict=True):
        block.add(channel, block.second(value + _constant(OFFSET_4X2)))
        _gate(block, channel, more, SHUT * bits[RIGHT], second=True)
    for bit, form in bits.items():
        block.add(bit, block.second(form))
    block.clear(range(len(signals)))
    signals = {key: _channel(channel, OFFSET_4X2) for channel, key in zip(new, split, strict=True)}
    return _down(_Block(weights, 14), signals, PAIRS, 4, OFFSET_2X2)


def _passed(block: _Block, signals: Signals, offset: float) -> Signals:
    """The channels from 0 as forms of the block's first units."""
    units = [block.first(_channel(index, 0)) for index in range(len(signals))]
    return {key: _channel(unit, offset) for unit, key in zip(units, signals, strict=True)}


def _pixels(weights: Weights, signals: Signals) -> None:
    """Level 1: cells of 2x2 to pixels, and luma and chroma to RGB."""
    block = _Block(weights, 18)
    bits = _bits(weights, "17", block, len(signals))
    signals = _passed(block, signals, OFFSET_2X2)
    place = _waves(2)
    rgb = torch.linalg.inv(latent.YCC)
    shut = {bit: SHUT * form for bit, form in bits.items()}
    for colour in range(3):
        # [y, x] of the cell's four pixels.
        values = [[_constant(0), _constant(0)], [_constant(0), _constant(0)]]
        for y in range(2):
            for x in range(2):
                for (plane, v, u), form in signals.items():
                    factor = rgb[colour, plane] * place[v, y] * place[u, x]
                    values[y][x] = values[y][x] + factor * form
                values[y][x][-1] += latent.LUMA_CENTRE
        (first, upper), (left, neither) = values
        channel = WIDTH // 2 + colour
        block.add(channel, block.second(neither + _constant(OFFSET_PIXEL)))
        _gate(block, channel, left - neither, shut[RIGHT], second=True)
        _gate(block, channel, upper - neither, shut[LOWER], second=True)
        last = first - upper - left + neither
        _gate(block, channel, last, shut[RIGHT] + shut[LOWER], second=True)
        weights["19.weight"][colour, channel, 1, 1] = 1
        weights["19.bias"][colour] = -OFFSET_PIXEL


def silent(strides: tuple[int, ...], blocks: tuple[int, ...], pooled: tuple[int, ...]) -> Weights:
    """The layers from ``WIDTH`` to ``WIDTH`` channels, all 0: blocks that are the identity."""
    weights: Weights = {}
    for index in strides:
        weights[f"{index}.weight"] = torch.zeros(WIDTH, WIDTH, 3, 3)
    for index in blocks:
        for layer in (0, 2, 4):
            weights[f"{index}.conv.{layer}.weight"] = torch.zeros(WIDTH, WIDTH, 3, 3)
            weights[f"{index}.conv.{layer}.bias"] = torch.zeros(WIDTH)
        if index in pooled:
            weights[f"{index}.pool.0.weight"] = torch.zeros(4 * WIDTH, WIDTH, 1, 1)
            weights[f"{index}.pool.1.weight"] = torch.ones(4 * WIDTH)
            weights[f"{index}.pool.1.bias"] = torch.zeros(4 * WIDTH)
            weights[f"{index}.pool.3.weight"] = torch.zeros(WIDTH, 4 * WIDTH, 1, 1)
    return weights
