"""Files that must get a readable no: damaged ones, impostors, and LoRAs that do not fit.

``damaged`` files are written byte by byte; ``broken`` ones are a good ai-toolkit-like LoRA with one
fault.
"""

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from .base import Base
from .kind import single
from .others import named

Tensors = dict[str, Tensor]
STEM = "diffusion_model.double_blocks.1.img_mlp.2"
"""The module that a fault sits in: [256, 768], so that a transposition shows in its shape."""


@dataclass(frozen=True)
class Bad:
    """One row: how the file is made, and what its error must say (regular expressions)."""

    name: str
    write: Callable[[Path, Base], None]
    says: tuple[str, ...]


def good(base: Base) -> Tensors:
    return dict(single(named("bfl", "diffusion_model.")(base, Generator().manual_seed(5))).tensors)


def broken(name: str, change: Callable[[Tensors], None], *says: str) -> Bad:
    def write(path: Path, base: Base) -> None:
        tensors = good(base)
        change(tensors)
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)

    return Bad(name, write, says or (STEM,))


def only(name: str, make: Callable[[Base], Tensors], *says: str, **metadata: str) -> Bad:
    return Bad(name, lambda path, base: save_file(make(base), path, metadata or None), says)


def _set(part: str, make: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        key = f"{STEM}.{part}"
        tensors[key] = make(tensors.get(key, torch.zeros(())))

    return change


def _poison(value: float) -> Callable[[Tensor], Tensor]:
    def make(tensor: Tensor) -> Tensor:
        poisoned = tensor.clone()
        poisoned.view(-1)[7] = value
        return poisoned

    return make


def _replace(**parts: Tensor) -> Callable[[Tensors], None]:
    """The module's LoRA gives way to another adapter; ``__`` stands for a dot."""

    def change(tensors: Tensors) -> None:
        for part in ("lora_A.weight", "lora_B.weight"):
            del tensors[f"{STEM}.{part}"]
        tensors |= {f"{STEM}.{part.replace('__', '.')}": v for part, v in parts.items()}

    return change


def _drop(part: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        del tensors[f"{STEM}.{part}"]

    return change


def _transpose(tensors: Tensors) -> None:
    """[768, 256] where the weight is [256, 768]: as many elements, all in the wrong place."""
    tensors[f"{STEM}.lora_A.weight"] = torch.randn(8, 256)
    tensors[f"{STEM}.lora_B.weight"] = torch.randn(768, 8)


R = torch.randn
A, B = "lora_A.weight", "lora_B.weight"
MISFITS = [
    broken("too wide", _set(A, lambda t: R(8, 700))),
    broken("too tall", _set(B, lambda t: R(300, 8))),
    broken("a transposed pair of equal size", _transpose),
    broken("factors stored transposed", _replace(
        lora_A__weight=R(768, 8), lora_B__weight=R(8, 256))),
    broken("rank mismatch", _set(A, lambda t: R(4, 768))),
    broken("rank 0", _replace(lora_A__weight=R(0, 768), lora_B__weight=R(256, 0))),
    broken("three-dimensional factor", _set(A, lambda t: R(2, 4, 768))),
    broken("lora_B without lora_A", _drop(A)),
    broken("lora_A without lora_B", _drop(B)),
    broken("alpha of two elements", _set("alpha", lambda t: torch.tensor([4.0, 4.0]))),
    broken("LoHa without a factor", _replace(
        hada_w1_a=R(256, 4), hada_w1_b=R(4, 768), hada_w2_a=R(256, 4))),
    broken("LoHa of another width", _replace(
        hada_w1_a=R(256, 4), hada_w1_b=R(4, 700), hada_w2_a=R(256, 4), hada_w2_b=R(4, 700))),
    broken("LoHa of two ranks", _replace(
        hada_w1_a=R(256, 4), hada_w1_b=R(3, 768), hada_w2_a=R(256, 4), hada_w2_b=R(4, 768))),
    broken("LoKr without w1", _replace(lokr_w2=R(32, 96))),
    broken("LoKr without half of w2", _replace(lokr_w1=R(8, 8), lokr_w2_a=R(32, 4))),
    broken("LoKr of another product", _replace(lokr_w1=R(8, 8), lokr_w2=R(32, 95))),
    broken("LoKr of the transposed size", _replace(lokr_w1=R(8, 8), lokr_w2=R(96, 32))),
    broken("DoRA of another length", _set("dora_scale", lambda t: R(250, 1))),
    broken("DoRA beside nothing", _replace(dora_scale=R(256, 1))),
    broken(".diff of another shape", _replace(diff=R(256, 700))),
    broken(".diff of the transposed shape", _replace(diff=R(768, 256))),
    broken("OFT blocks that do not fill the rows", _replace(oft_blocks=R(30, 8, 8))),
    broken("OFT_2 blocks that do not fill the columns", _replace(oft_R__weight=R(47, 120))),
    broken("OFT_2 values that are no triangle", _replace(oft_R__weight=R(48, 119))),
    broken("IA3 of another length", _replace(weight=R(250), on_input=torch.tensor(0.0))),
    broken("GLoRA without a factor", _replace(
        a1__weight=R(768, 4), a2__weight=R(4, 768), b1__weight=R(256, 4))),
]  # fmt: skip

NAN, INF = float("nan"), float("inf")
FINITE = "NaN|[Ii]nfinit|finite|damaged"
NOT_FINITE = [
    broken("NaN in lora_A", _set(A, _poison(NAN)), STEM, FINITE),
    broken("infinity in lora_B", _set(B, _poison(INF)), STEM, FINITE),
    broken("alpha NaN", _set("alpha", lambda t: torch.tensor(NAN)), STEM, FINITE),
    broken("alpha infinite on a LoRA", _set("alpha", lambda t: torch.tensor(INF)), STEM, FINITE),
    broken("NaN in .diff", _replace(diff=_poison(NAN)(R(256, 768))), STEM, FINITE),
    broken("NaN in LoKr", _replace(
        lokr_w1=_poison(NAN)(R(8, 8)), lokr_w2=R(32, 96)), STEM, FINITE),
    broken("alpha infinite on a decomposed LoKr", _replace(
        lokr_w1=R(8, 8), lokr_w2_a=R(32, 4), lokr_w2_b=R(4, 96), alpha=torch.tensor(INF)),
        STEM, FINITE),
    broken("NaN in a DoRA magnitude", _set(
        "dora_scale", lambda t: _poison(NAN)(R(256, 1))), STEM, FINITE),
    broken("product that overflows", _replace(
        lora_A__weight=torch.full((8, 768), 3e38),
        lora_B__weight=torch.full((256, 8), 3e38)), STEM),
]  # fmt: skip


def _strangers(base: Base) -> Tensors:
    return {f"layer.{i}.lora_{s}.weight": torch.randn(4, 4) for i in range(3) for s in "AB"}


def _sdxl(base: Base) -> Tensors:
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {"lora_down.weight": (8, 640), "lora_up.weight": (640, 8), "alpha": ()}
    return {f"{stem}.{part}": torch.ones(shape) for part, shape in parts.items()}


def _text_encoder(base: Base) -> Tensors:
    stem = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    return {f"{stem}.lora_down.weight": R(8, 768), f"{stem}.lora_up.weight": R(3072, 8)}


def _diffusers_checkpoint(base: Base) -> Tensors:
    return {f"{s.name}.weight": s.weight(base).float().contiguous() for s in base.diffusers("all")}


CHECKPOINT = "checkpoint|full model|whole model|not a LoRA"
NO_MATCH = [
    only("names of no model", _strangers, "no module|[Nn]one of|match"),
    only("an SDXL LoRA", _sdxl, "no module|[Nn]one of|match|SDXL"),
    only("text-encoder keys alone", _text_encoder, "no module|[Nn]one of|match|text"),
    only("no tensors", lambda base: {}, "no tensors|empty|nothing"),
    only("no tensors but metadata", lambda base: {}, "no tensors|empty|nothing", title="ink"),
    only("a full checkpoint", lambda base: base.checkpoint(), CHECKPOINT),
    only("a full checkpoint, ComfyUI names", lambda base: {
        f"model.diffusion_model.{k}": v for k, v in base.checkpoint().items()}, CHECKPOINT),
    only("a full checkpoint, diffusers names", _diffusers_checkpoint, CHECKPOINT),
]  # fmt: skip


def _bytes(name: str, make: Callable[[bytes], bytes], *says: str) -> Bad:
    """A good file's bytes, changed."""

    def write(path: Path, base: Base) -> None:
        save_file(good(base), path)
        path.write_bytes(make(path.read_bytes()))

    return Bad(name, write, says)


def _header(table: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _million(_: bytes) -> bytes:
    entry = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return _header(b"{" + b",".join(b'"t%d":%s' % (i, entry) for i in range(10**6)) + b"}")


def _entry(start: int = 0, end: int = 16, dtype: str = "F32", shape: tuple = (4,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>" + b"." * 4000
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1234567\n"
BROKEN = "damaged|cut short|not a .safetensors|web page|header"
DAMAGED = [
    _bytes("0 bytes", lambda good: b"", "empty|0 bytes"),
    _bytes("7 bytes", lambda good: good[:7], BROKEN),
    _bytes("cut in the header", lambda good: good[:300], "cut short|damaged|download"),
    _bytes("cut in the tensors", lambda good: good[:-100], "cut short|damaged|download"),
    _bytes("trailing bytes", lambda good: good + b"\0" * 16, "damaged|behind|16 bytes"),
    _bytes("an HTML page", lambda good: HTML, "web page|HTML"),
    _bytes("an HTML page, small", lambda good: b"\n <html>", "web page|HTML"),
    _bytes("a git-lfs pointer", lambda good: LFS, "git-lfs"),
    _bytes("a pickle", lambda good: pickle.dumps({"a": list(range(999))}), "pickle"),
    _bytes("a zip pickle", lambda good: b"PK\x03\x04" + bytes(5000), "pickle|zip"),
    _bytes("JSON text", lambda good: json.dumps({"error": "x" * 999}).encode(), "JSON|not a"),
    _bytes("header length 2^40", lambda good: _header({}, good, 2**40), BROKEN),
    _bytes("header length 2^63", lambda good: _header({}, good, 2**63), BROKEN),
    _bytes("header length 0", lambda good: _header(b""), BROKEN),
    _bytes("10^6 tensors", _million, "tensors|header"),
    _bytes("nested JSON", lambda good: _header(b'{"a":' * 10**5 + b"0" + b"}" * 10**5), BROKEN),
    _bytes("a number of 10^5 digits", lambda good: _header(b'{"a":' + b"9" * 10**5 + b"}"), BROKEN),
    _bytes("header is a list", lambda good: _header([1, 2]), BROKEN),
    _bytes("header is no UTF-8", lambda good: _header(b'{"\xff\xfe": 1}'), BROKEN),
    _bytes("overlapping tensors", lambda good: _header(
        {"a": _entry(), "b": _entry(8, 24)}, bytes(24)), "overlap|damaged"),
    _bytes("a gap between tensors", lambda good: _header(
        {"a": _entry(), "b": _entry(20, 36)}, bytes(36)), "gap|damaged"),
    _bytes("negative offsets", lambda good: _header({"a": _entry(-16, 0)}, bytes(16)), "damaged"),
    _bytes("shape beyond the bytes", lambda good: _header(
        {"a": _entry(shape=(2**31, 2**31))}, bytes(16)), "damaged"),
    _bytes("an unknown dtype", lambda good: _header(
        {"a": _entry(dtype="Q9")}, bytes(16)), "Q9|type"),
    _bytes("one name twice", lambda good: _header(
        b'{"a":%b,"a":%b}' % ((json.dumps(_entry()).encode(),) * 2), bytes(16)), "damaged|twice"),
]  # fmt: skip
