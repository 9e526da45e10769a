"""An adapter's kind, the weight shape it was made for and its rank, from its tensors' shapes alone.

So a misfit is found before a tensor is read.
"""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from .transforms import block_size

Shape = tuple[int, ...]


class Unfit(ValueError):
    """Tensors that make no adapter together; the message completes "<module> ..."."""


class Unpaired(Unfit):
    """A factor without its other half."""


class Unsupported(Unfit):
    """An adapter of a kind that cannot be applied to this model exactly."""


class Geometry(NamedTuple):
    """Kind ("LoRA", "LoKr", ...), rows and columns (None: it fits any), and rank if it has one."""

    kind: str
    rows: int | None
    columns: int | None
    rank: int | None


# What a group must hold all of, for its kind. The first kind with any of its parts decides.
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "LoRA": ("down", "up"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "GLoRA": ("glora_a1", "glora_a2", "glora_b1", "glora_b2"),
}
_UNSUPPORTED = {
    "hada_t1": "Tucker LoHa",
    "hada_t2": "Tucker LoHa",
    "lokr_t1": "Tucker LoKr",
    "lokr_t2": "Tucker LoKr",
    "glora_bm": "Tucker GLoRA",
    "set_weight": "a replaced weight",
    "tlora_q": "T-LoRA, whose effect depends on the timestep",
    "tlora_lambda": "T-LoRA, whose effect depends on the timestep",
}


def geometry(shapes: Mapping[str, Shape], target_shape: Shape) -> Geometry:
    """The adapter that parts of these shapes make; ``target_shape`` settles full-rank LoRA alone.

    Raises Unpaired, Unsupported or Unfit.
    """
    for part, what in _UNSUPPORTED.items():
        if part in shapes:
            raise Unsupported(f"holds {what}, and that is not supported")
    for kind, parts in _REQUIRED.items():
        present = [part for part in parts if part in shapes]
        if not present:
            continue
        if kind == "LoRA" and present == ["down"] and _matrix(shapes["down"]) == target_shape:
            return Geometry("full-rank LoRA", target_shape[0], target_shape[1], None)
        if len(present) < len(parts):
            missing = ", ".join(part for part in parts if part not in shapes)
            raise Unpaired(f"has {', '.join(present)} but not {missing}")
        return _FACTORED[kind]([_matrix(shapes[part]) for part in parts], shapes)
    if any(part.startswith("lokr_") for part in shapes):
        return _lokr(shapes)
    if "diff" in shapes:
        return _full_difference(shapes["diff"])
    if "oft_r" in shapes:
        return _oft_v2(_matrix(shapes["oft_r"]))
    if "oft_blocks" in shapes:
        return _oft(shapes["oft_blocks"])
    if "on_input" in shapes and "weight" in shapes:
        return Geometry("IA3", None, None, None)
    if "ia3_l" in shapes:
        return _ia3(shapes["ia3_l"])
    if {"diff_b", "up_bias"} & shapes.keys():
        return Geometry("bias", None, None, None)
    if {"magnitude", "dora_scale"} & shapes.keys():
        raise Unpaired("has a DoRA magnitude but no LoRA factors")
    raise Unpaired(f"has only {', '.join(sorted(shapes))}")


def _full_difference(shape: Shape) -> Geometry:
    if len(shape) == 1:
        return Geometry("full difference", shape[0], None, None)
    return Geometry("full difference", *_matrix(shape), None)


def _matrix(shape: Shape) -> tuple[int, int]:
    """A convolution of kernel 1 is the same matrix."""
    if len(shape) < 2:
        raise Unfit(f"has a factor of shape {list(shape)} where a matrix is needed")
    return shape[0], prod(shape[1:])


def _lora(factors: list[tuple[int, int]], shapes: Mapping[str, Shape]) -> Geometry:
    (rank, columns), (rows, up_rank) = factors
    if "mid" in shapes:
        mid = _matrix(shapes["mid"])
        if mid != (up_rank, rank):
            raise Unfit(f"has a middle factor {list(mid)} that fits neither of its others")
    elif rank != up_rank:
        raise Unfit(f"has factors of rank {rank} and {up_rank}")
    if not rank:
        raise Unfit("has factors of rank 0")
    return Geometry("LoRA", rows, columns, rank)


def _loha(factors: list[tuple[int, int]], shapes: Mapping[str, Shape]) -> Geometry:
    (rows, r1), (r1b, columns), (rows2, r2), (r2b, columns2) = factors
    if (r1, r2, rows, columns) != (r1b, r2b, rows2, columns2):
        raise Unfit("has LoHa factors that do not fit each other")
    return Geometry("LoHa", rows, columns, r1)


def _glora(factors: list[tuple[int, int]], shapes: Mapping[str, Shape]) -> Geometry:
    (columns, ra), (ra2, columns2), (rows, rb), (rb2, columns3) = factors
    if (ra, rb) != (ra2, rb2) or len({columns, columns2, columns3}) != 1:
        raise Unfit("has GLoRA factors that do not fit each other")
    return Geometry("GLoRA", rows, columns, ra)


_FACTORED = {"LoRA": _lora, "LoHa": _loha, "GLoRA": _glora}


def _lokr(shapes: Mapping[str, Shape]) -> Geometry:
    (a, b), rank1 = _lokr_side(shapes, "lokr_w1")
    (c, d), rank2 = _lokr_side(shapes, "lokr_w2")
    # LyCORIS divides alpha by the rank of w2's factors, or of w1's where w2 is whole.
    return Geometry("LoKr", a * c, b * d, rank2 or rank1)


def _lokr_side(shapes: Mapping[str, Shape], name: str) -> tuple[tuple[int, int], int | None]:
    if name in shapes:
        return _matrix(shapes[name]), None
    if f"{name}_a" not in shapes or f"{name}_b" not in shapes:
        raise Unpaired(f"has LoKr factors but no {name}, or half of it")
    rows, rank = _matrix(shapes[f"{name}_a"])
    rank_b, columns = _matrix(shapes[f"{name}_b"])
    if rank != rank_b:
        raise Unfit(f"has LoKr factors of rank {rank} and {rank_b}")
    return (rows, columns), rank


def _ia3(shape: Shape) -> Geometry:
    rows, columns = _matrix(shape)
    if 1 not in (rows, columns):
        raise Unfit(f"has an IA3 vector of shape {list(shape)}")
    return Geometry("IA3", rows if rows > 1 else None, columns if columns > 1 else None, None)


def _oft_v2(shape: tuple[int, int]) -> Geometry:
    size = block_size(shape[1])
    if size < 2:
        raise Unfit(f"has OFT vectors of {shape[1]} elements, which is no triangle of a matrix")
    return Geometry("OFTv2", None, shape[0] * size if shape[0] > 1 else None, size)


def _oft(shape: Shape) -> Geometry:
    if len(shape) not in (3, 4) or shape[-1] != shape[-2] or shape[-1] < 2:
        raise Unfit(f"has OFT blocks of shape {list(shape)}")
    kind = "OFT" if len(shape) == 3 else "BOFT"
    return Geometry(kind, shape[-3] * shape[-1], None, shape[-1])
