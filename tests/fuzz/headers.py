"""Mutated .safetensors files through all that Apply and LoRA Info do before a weight is touched.

Every adapter of the pack on a tiny FLUX.2; tensors of arbitrary bits, NaN among them. Each file
ends as steps that really apply, or in a ``LoraFileError``; what is said of it can be shown.
"""

import json
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import torch
from mutate import battered, odd, texts, twisted

from flux2_lora_edit.flux2.variants import identify
from flux2_lora_edit.lora_loader.adapters.base import Additive, Transform
from flux2_lora_edit.lora_loader.reading.file import (
    DTYPE_BITS,
    LoraFile,
    LoraFileError,
    read_header,
)
from flux2_lora_edit.lora_loader.reading.fit import ReadLora, read_lora
from flux2_lora_edit.lora_loader.reading.info import describe_stack
from flux2_lora_edit.lora_loader.reading.layout import Layout
from flux2_lora_edit.lora_loader.reading.report import Report
from flux2_lora_edit.lora_loader.reading.scaling import settings_beside
from flux2_lora_edit.lora_loader.stack import LoraEntry

H = 16
LINEAR = {
    "img_in": (H, 8), "txt_in": (H, 24), "time_in.in_layer": (H, H), "final_layer.linear": (8, H),
    "double_stream_modulation_img.lin": (6 * H, H), "single_stream_modulation.lin": (3 * H, H),
    "final_layer.adaLN_modulation.1": (2 * H, H),
    "double_blocks.0.img_attn.qkv": (3 * H, H), "double_blocks.0.img_attn.proj": (H, H),
    "double_blocks.0.txt_attn.qkv": (3 * H, H), "double_blocks.0.img_mlp.0": (6 * H, H),
    "double_blocks.0.txt_mlp.2": (H, 3 * H), "single_blocks.0.linear1": (9 * H, H),
    "single_blocks.0.linear2": (H, 4 * H),
}  # fmt: skip
NORMS = ("double_blocks.0.img_attn.norm.query_norm", "single_blocks.0.norm.key_norm")
WEIGHTS: dict[str, tuple[int, ...]] = {
    **{f"diffusion_model.{name}.weight": shape for name, shape in LINEAR.items()},
    **{f"diffusion_model.{name}.weight": (8,) for name in NORMS},
    "diffusion_model.img_in.bias": (H,),
}
LAYOUT, MODEL = Layout(WEIGHTS), identify(WEIGHTS)

# Name in a file -> rows and columns of the weight that it names.
PLACES: dict[str, tuple[int, int]] = {
    **LINEAR,
    "x_embedder": (H, 8), "proj_out": (8, H), "norm_out.linear": (2 * H, H),
    "transformer_blocks.0.attn.to_q": (H, H), "transformer_blocks.0.attn.to_v": (H, H),
    "transformer_blocks.0.attn.add_k_proj": (H, H), "transformer_blocks.0.attn.to_out.0": (H, H),
    "transformer_blocks.0.ff.linear_in": (6 * H, H),
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": (9 * H, H),
    "single_transformer_blocks.0.attn.to_out": (H, 4 * H),
    "double_blocks.0.img_mod.lin": (6 * H, H), "double_blocks.9.img_attn.qkv": (3 * H, H),
    "text_encoder.layers.0.q_proj": (H, H), "layers.3.q": (4, 4),
}  # fmt: skip
PREFIXES = (
    "diffusion_model.", "transformer.", "base_model.model.", "", "lora_unet_", "lycoris_",
    "model.diffusion_model.", "lora_te1_", "single_",
)  # fmt: skip
Shapes = dict[str, tuple[int, ...]]


def adapters(rng: Random, o: int, i: int) -> Shapes:
    """The tensors of one adapter for a weight (o, i)."""
    r = rng.choice((1, 2, 4))
    kinds: tuple[Shapes, ...] = (
        {"lora_A.weight": (r, i), "lora_B.weight": (o, r)},
        {"lora_down.weight": (r, i), "lora_up.weight": (o, r), "alpha": ()},
        {"lora_A.default.weight": (r, i), "lora_B.default.weight": (o, r), "lora_B.bias": (o,)},
        {"lora_down.weight": (r, i, 1, 1), "lora_mid.weight": (r, r, 1, 1),
         "lora_up.weight": (o, r, 1, 1), "alpha": (1,)},
        {"lora_A.weight": (r, i), "lora_B.weight": (o, r), "lora_magnitude_vector": (o,)},
        {"lora_down.weight": (r, i), "lora_up.weight": (o, r), "dora_scale": (1, i), "alpha": ()},
        {"lora_A.weight": (o, i)},
        {"hada_w1_a": (o, r), "hada_w1_b": (r, i), "hada_w2_a": (o, r), "hada_w2_b": (r, i),
         "alpha": ()},
        {"a1.weight": (i, r), "a2.weight": (r, i), "b1.weight": (o, r), "b2.weight": (r, i)},
        {"lokr_w1": (2, 2), "lokr_w2": (o // 2, i // 2), "alpha": ()},
        {"lokr_w1_a": (4, r), "lokr_w1_b": (r, 4), "lokr_w2_a": (o // 4, r),
         "lokr_w2_b": (r, i // 4)},
        {"diff": (o, i), "diff_b": (o,)},
        {"oft_blocks": (o // 4, 4, 4), "rescale": (o, 1), "alpha": ()},
        {"oft_blocks": (2, o // 4, 4, 4), "alpha": ()},
        {"oft_R.weight": (i // 4, 6), "oft_R.scaled_oft": ()},
        {"weight": (o,), "on_input": (1,)},
        {"ia3_l.weight": (1, i)},
        {"weight": (o, i), "bias": (o,)},
        {"diff": (8,)},
    )  # fmt: skip
    return dict(rng.choice(kinds))


def pattern(rng: Random) -> str:
    """What a stranger may write for a regular expression."""
    if rng.random() < 0.4:
        return rng.choice(["to_q", "linear1", r"double_blocks\.\d+\.img_attn", ".*qkv", "^img_in"])
    parts = (
        "a?",
        ".*",
        "(a|aa)",
        "[a-z.]*",
        "(?:x|.)",
        "+",
        "(",
        ")",
        r"\w+",
        r"\1",
        "{2,}",
        "a",
        ".",
    )
    return "".join(rng.choice(parts) for _ in range(rng.choice((2, 6, 40))))


def settings(rng: Random) -> dict[str, Any]:
    """PEFT's settings, as diffusers and PEFT write them."""
    table: dict[str, Any] = {
        "peft_type": rng.choice(["LORA", "LOHA", "LOKR", "OFT"]),
        "r": 4, "lora_alpha": 8, "alpha": 8,
        "use_rslora": rng.random() < 0.5,
        "alpha_pattern": {pattern(rng): rng.choice([1, 2.5, -3, 0]) for _ in range(2)},
        "rank_pattern": {pattern(rng): rng.choice([1, 2, 0]) for _ in range(2)},
    }  # fmt: skip
    return twisted(rng, table) if rng.random() < 0.6 else table


def metadata(rng: Random) -> dict[str, Any]:
    """Some of what trainers write."""
    peft = settings(rng)
    every = {
        "lora_adapter_metadata": texts({f"transformer.{k}": v for k, v in peft.items()}).decode(
            "utf-8", "replace"
        ),
        "ss_base_model_version": rng.choice(["flux2", "flux2_klein_9b", "flux1", "sdxl"]),
        "modelspec.architecture": rng.choice(["Flux.2-dev", "flux-1-dev/lora", "flux2 klein-4b"]),
        "modelspec.title": rng.choice(["ink", "<b>x</b>", "\u202eevil", "a" * 3000]),
        "training_info": texts({"step": 1, "trigger_word": odd(rng)}).decode("utf-8", "replace"),
        "ss_tag_frequency": texts({"set": {"ink": 9, "tag": odd(rng)}, "b": odd(rng)}).decode(
            "utf-8", "replace"
        ),
        "ss_network_alpha": "8", "trigger_word": "ink, paper\nwash", "software": "ai-toolkit",
    }  # fmt: skip
    return {key: every[key] for key in rng.sample(sorted(every), rng.randint(1, 4))}


def tensors(rng: Random) -> Shapes:
    """Names and shapes of a small LoRA."""
    found: Shapes = {}
    prefix = rng.choice(PREFIXES)
    for _ in range(rng.randint(1, 4)):
        stem = rng.choice(list(PLACES))
        o, i = PLACES[stem]
        flat = stem.replace(".", "_") if prefix.endswith("_") else stem
        more = "a" * rng.choice((0, 0, 0, 30, 800)) + "." if rng.random() < 0.1 else ""
        for part, shape in adapters(rng, o, i).items():
            found[f"{more}{prefix}{flat}.{part}"] = shape
    return found


def _reshaped(rng: Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    dims = list(shape)
    kind = rng.randrange(6)
    if kind == 0 and dims:
        dims[rng.randrange(len(dims))] = rng.choice((0, 1, 2, 3, 5, 8, 15, 17))
    elif kind == 1:
        dims.insert(rng.randint(0, len(dims)), rng.choice((0, 1, 1, 2)))
    elif kind == 2 and dims:
        dims.pop(rng.randrange(len(dims)))
    elif kind == 3:
        dims.reverse()
    elif kind == 4:
        dims = [0] * rng.randint(0, 8)
    else:
        dims = [rng.choice((1, 2, 4, 16)) for _ in range(rng.randint(0, 4))]
    return tuple(dims) if prod(dims) <= 20_000 else shape


def case(rng: Random) -> tuple[bytes, bytes | None]:
    """A file's bytes, and those of the adapter_config.json beside it."""
    shapes = tensors(rng)
    mode = rng.random()
    usual, offset = rng.choice(("F32", "BF16", "F16")), 0
    table: dict[str, Any] = {}
    if rng.random() < 0.5:
        table["__metadata__"] = metadata(rng)
    for name, shape in shapes.items():
        if mode < 0.6 and rng.random() < 0.12:
            shape = _reshaped(rng, shape)
        if mode < 0.6 and rng.random() < 0.04:
            name = rng.choice(
                (
                    name.upper(),
                    name + ".x",
                    name.replace(".", ".."),
                    "\ud800" + name,
                    name.replace("0", "9" * 30),
                    name * 3,
                    name[3:],
                    name + "\x1b[2J",
                )
            )
        dtype = rng.choice(sorted(DTYPE_BITS)) if rng.random() < 0.05 else usual
        size = (prod(shape) * DTYPE_BITS[dtype] + 7) // 8
        table[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    if 0.5 < mode < 0.8:
        twisted(rng, table)
    text = json.dumps(table).encode() if mode < 0.5 else texts(table)
    data = bytes(offset) if rng.random() < 0.2 else _small(rng, offset, usual)
    if mode < 0.5 and rng.random() < 0.3:
        data = rng.randbytes(offset)
    whole = struct.pack("<Q", len(text)) + text + data
    if mode > 0.8:
        head = battered(rng, text)
        whole = struct.pack("<Q", len(head)) + head + data
        whole = whole if rng.random() < 0.7 else battered(rng, whole)
    config = texts(settings(rng)) if rng.random() < 0.1 else None
    return whole, config


_POOL = {
    name: (torch.randn(65_536, generator=torch.Generator().manual_seed(3)) / 4).to(kind)
    for name, kind in (("F32", torch.float32), ("BF16", torch.bfloat16), ("F16", torch.float16))
}
_BYTES = {name: pool.view(torch.uint8).numpy().tobytes() for name, pool in _POOL.items()}


def _small(rng: Random, size: int, dtype: str) -> bytes:
    """Numbers of a usual size."""
    pool = _BYTES[dtype]
    return (pool * (size // len(pool) + 1))[:size]


class Checked(AssertionError):
    """What must hold of every case, and does not."""


def run(folder: Path, given: tuple[bytes, bytes | None]) -> str:
    """One case; how it ended. Raises where it did not end as promised."""
    data, config = given
    path = folder / "adapter_model.safetensors"
    path.write_bytes(data)
    beside = folder / "adapter_config.json"
    if config is not None:
        beside.write_bytes(config)
    entry = LoraEntry("adapter_model.safetensors", 1.0, 1.0)
    try:
        if len(data) % 3 == 0:  # it reads the same header once more
            info, words = describe_stack([entry], lambda one: path)
            shown(info + words, 60_000)
        try:
            own, _ = settings_beside(path)
            read = read_lora(entry, LoraFile(read_header(path), ("", 0, 0)), LAYOUT, MODEL, own)
        except LoraFileError as error:
            shown(str(error), 1_000)
            return "no file"
        report = Report(MODEL, "auto", "merge", "", (read.report,), read.warnings)
        shown(report.to_text() + read.refusal, 60_000)
        shown(report.to_json(), 4_000_000)
        apply(read)
        return "refused" if read.refusal else "applied"
    finally:
        if config is not None:
            beside.unlink()


def shown(text: str, most: int) -> None:
    """A text that any screen and file takes, of a length that somebody reads."""
    text.encode()
    if len(text) > most:
        raise Checked(f"{len(text)} characters: {text[:200]!r}")


def apply(read: ReadLora) -> None:
    """The steps on weights of the model's shapes, as ``merge`` does, and rolled."""
    for key, step in read.steps:
        shape = WEIGHTS[key]
        weight = torch.ones(shape)[step.start : step.start + step.rows]
        effect = step.effect
        if isinstance(effect, Transform):
            try:
                made = effect.trained(weight.float())
            except torch.linalg.LinAlgError:
                continue
        else:
            if not isinstance(effect, Additive):
                raise Checked(f"a step of {type(effect).__name__}")
            made = effect.dense()
            effect.prepared().add_to(weight, 0.5)
        if made.numel() != weight.numel():
            raise Checked(f"{type(effect).__name__} gives {tuple(made.shape)} for {shape}")


@contextmanager
def room() -> Iterator[Path]:
    """A folder for the one file, in memory where the system has such a place."""
    memory = "/dev/shm"  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as folder:
        yield Path(folder)
