"""A FLUX.2 transformer by construction: its weights are written down, not trained.

The architecture is the real one (black-forest-labs/flux2 ``model.py``), and every part of it does
here in small what it is there for:

- text chooses: in the first double block each picture token looks at the words of the prompt;
- references are read: in the second, attention finds by RoPE the token at its own place in the
  reference that the prompt means, at t = 10, 20 or 30, and copies it;
- the MLPs edit: the third block's gated units change what was copied, by the words of the prompt;
- time is a modulation: the last layer returns ``(x_t - x_0) / sigma``, the flow from the picture
  that is meant to the noise, whose finer parts are decided at smaller sigmas.

How to write that down without a bias anywhere: one modulated channel, ONE, is always 1 (scale -1,
shift 1), and two large channels of opposite sign make each layer norm a division by a known number.
The remainder of every write goes to ONE's place in the stream, which nothing reads, so that the
mean that a layer norm takes away is always 0.
"""

import torch

from host.tiny import Weights, transformer_shapes

from . import edits, words
from .modulation import ALWAYS, FLOW, FLOW_FINE, FLOW_MIDDLE, fit_time, modulate
from .stream import (
    ASIDE,
    CHOSEN,
    DOUBLE,
    GROUND,
    HEAD,
    HEIGHT,
    HIDDEN,
    IMAGE,
    LARGE,
    MEANT,
    MINUS,
    MLP,
    NORM,
    ONE,
    PALETTE,
    PLACE,
    PLUS,
    REFERENCES,
    SHARP,
    SINGLE,
    STEEP,
    STILL,
    SURE,
    WANTED,
    WISHED,
    WORD,
    Heads,
    Units,
    balance,
    direction,
)


def transformer(kind: str, seed: int = 0) -> Weights:
    """The weights of ``kind``, "klein" or "dev", under BFL's names; float32, 75 MB."""
    w = _zeros(kind)
    fit_time(w, kind, seed)
    modulate(w, kind)
    _take_in(w)
    _read_the_prompt(w)
    _copy_references(w)
    _edit(w)
    _look_at_oneself(w)
    _flow(w)
    for name, weight in w.items():
        if name.endswith(("_in.weight", "proj.weight", "mlp.2.weight", "linear2.weight")):
            balance(weight)
    return w


def _zeros(kind: str) -> Weights:
    variant = "dev" if kind == "dev" else "klein-4b"
    shapes = transformer_shapes(variant, HIDDEN, words.WIDTH, DOUBLE, SINGLE)
    # What has one dimension are the scales of normalised queries and keys.
    return {
        name: torch.full(shape, SHARP) if len(shape) == 1 else torch.zeros(shape)
        for name, shape in shapes.items()
    }


def _take_in(w: Weights) -> None:
    w["img_in.weight"][IMAGE] = edits.BASIS
    w["txt_in.weight"][: words.CHANNELS, : words.CHANNELS] = torch.eye(words.CHANNELS)
    # The large channels: a gated unit that is always open, of opposite signs for text and picture.
    for stream, sign in (("img", 1), ("txt", -1)):
        prefix = f"double_blocks.0.{stream}_mlp"
        unit = Units(w, prefix)
        large = sign * LARGE
        unit.add(gate={ONE: STEEP}, up={ONE: 1 / STEEP}, out={PLUS: large, MINUS: -large})


def _read_the_prompt(w: Weights) -> None:
    """First double block: picture tokens gather what the words say, each head one question.

    A head finds all words that answer it and takes their mean; where there is none, the beginning
    of the text answers, with a key a little aside.
    """
    image = Heads(w["double_blocks.0.img_attn.qkv.weight"])
    text = Heads(w["double_blocks.0.txt_attn.qkv.weight"])
    proj = w["double_blocks.0.img_attn.proj.weight"]
    for head, asked in enumerate((tuple(words.PICTURES), words.EDITS)):
        image.query(head)[:, ONE] = STILL
        for channel in asked:
            text.key(head)[:, channel] = STILL
        text.key(head)[:, words.BEGIN] = 0.8 * STILL + 0.6 * ASIDE
    for channel, means in words.PICTURES.items():
        text.value(0)[:3, channel] = torch.tensor(means) / WORD
    for number, channel in enumerate(words.EDITS):
        text.value(1)[number, channel] = 1 / WORD
    for head, into in ((0, CHOSEN), (1, WISHED)):
        width = into.stop - into.start
        proj[into, HEAD * head : HEAD * head + width] = torch.eye(width)


def _copy_references(w: Weights) -> None:
    """Second double block: attention to the same place of the reference that is meant.

    Without such a reference the text is looked at, whose beginning is a sky and whose end is land:
    the nearer by height. The MLP then turns each edit's share of the words into 0 or 1.
    """
    image = Heads(w["double_blocks.1.img_attn.qkv.weight"])
    text = Heads(w["double_blocks.1.txt_attn.qkv.weight"])
    proj = w["double_blocks.1.img_attn.proj.weight"]
    for head in (0, 1):
        image.query(head)[:, ONE] = PLACE + 0.55 * HEIGHT
        image.key(head)[:, ONE] = PLACE + SURE * direction(0, range(6))
        # The end fills the text up: of its many copies each weighs less.
        text.key(head)[:, words.BEGIN] = REFERENCES.sum(0) + 0.55 * HEIGHT
        text.key(head)[:, words.END] = 0.987 * REFERENCES.sum(0) + 0.55 * GROUND
    image.query(0)[:, CHOSEN] = SURE * NORM * REFERENCES.T
    image.query(1)[:, ONE] += SURE * REFERENCES[1]
    image.value(0)[:, IMAGE] = NORM * torch.eye(128)
    for channel, colour in ((words.BEGIN, edits.SKY), (words.END, edits.LAND)):
        text.value(0)[:, channel] = NORM / words.VALUE * colour
    proj[MEANT, :HEAD] = torch.eye(128)
    colours = edits.COLOURS
    image.value(1)[: len(colours), IMAGE] = NORM * torch.eye(128)[colours]
    proj[PALETTE, HEAD : HEAD + len(colours)] = torch.eye(len(colours))
    units = Units(w, "double_blocks.1.img_mlp")
    for wished, wanted in zip(_places(WISHED), _places(WANTED), strict=True):
        steep = 3 * STEEP * NORM
        units.add(gate={wished: steep}, up={ONE: 1}, out={wanted: 1 / STEEP})
        units.add(gate={wished: steep, ONE: -STEEP}, up={ONE: 1}, out={wanted: -1 / STEEP})


def _places(channels: slice) -> range:
    return range(channels.start, channels.stop)


def _edit(w: Weights) -> None:
    """Third double block: for each edit that is wanted, its linear map of the meant picture."""
    units = Units(w, "double_blocks.2.img_mlp")
    for number, edit in enumerate(edits.EDITS.values()):
        gate = {WANTED.start + number: STEEP * NORM}
        units.map(gate, NORM / STEEP * edit.change, MEANT, MEANT)
        offset = {MEANT.start + i: v for i, v in enumerate(edit.offset.tolist()) if v}
        if offset:
            units.add(gate, up={ONE: 1 / STEEP}, out=offset)
    gate = {WANTED.start + len(edits.EDITS): STEEP * NORM}
    place = torch.zeros(128, len(edits.COLOURS))
    place[edits.COLOURS] = NORM / STEEP * torch.eye(len(edits.COLOURS))
    taken = units.taken
    units.map(gate, place, PALETTE, MEANT)
    for unit, colour in zip(range(taken, units.taken), edits.COLOURS, strict=True):
        units.inward[MLP + unit, MEANT.start + colour] = -NORM / STEEP


def _look_at_oneself(w: Weights) -> None:
    """Single blocks: each picture token attends to itself, and nothing is done with it yet.

    What LoRAs find to work with: the meant picture and a constant.
    """
    for block in range(SINGLE):
        heads = Heads(w[f"single_blocks.{block}.linear1.weight"])
        here = PLACE + SURE * direction(0, range(6))
        heads.query(0)[:, ONE] = here
        heads.key(0)[:, PLUS] = here * NORM / LARGE
        heads.value(0)[:, MEANT] = NORM * torch.eye(128)
        heads.value(1)[0, ONE] = 1


def _flow(w: Weights) -> None:
    """(x_t - x_0) / sigma, the parts of x_0 by how fine they are."""
    scale = w["final_layer.adaLN_modulation.1.weight"][HIDDEN:]
    scale[:, ALWAYS] = -1
    scale[IMAGE, FLOW] = 1
    for part, signal in zip(edits.PARTS, (FLOW, FLOW_MIDDLE, FLOW_FINE), strict=True):
        scale[[MEANT.start + channel for channel in part], signal] = 1
    w["final_layer.linear.weight"][:, IMAGE] = NORM * edits.BASIS.T
    w["final_layer.linear.weight"][:, MEANT] = -NORM * edits.BASIS.T
