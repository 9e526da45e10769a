"""A group's tensors -> one adapter, ready to be applied."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..reading.scaling import PeftSettings
from .additive import Additive, Dense, Hadamard, Kronecker, LowRank
from .geometry import Geometry, Unfit
from .transforms import (
    BlockRotation,
    Butterfly,
    ChannelScale,
    Dora,
    GeneralizedLora,
    InputRotation,
    Transform,
)


class NotFinite(Unfit):
    """NaN or infinity in a file: training broke, or the file did."""


class Adapter(NamedTuple):
    """What one module's adapter does to its weight and bias, its kind, and the file's own scale."""

    effect: Additive | Transform | None
    bias: Dense | None
    kind: str
    scale: float


def read_adapter(
    parts: Mapping[str, Tensor],
    peaks: Mapping[str, float],
    form: Geometry,
    rows: int,
    columns: int | None,
    stem: str,
    settings: PeftSettings | None,
) -> Adapter:
    """The adapter of a module of shape (rows, columns), from its tensors and their largest
    magnitudes by part.

    Raises NotFinite or Unfit (whose message completes "<module> ...").
    """
    for part, tensor in parts.items():
        if part not in _SCALARS:
            _check(part, tensor, peaks[part])
    scale = _scale(parts, form, stem, settings)
    bias = None
    for part, factor in (("diff_b", 1.0), ("up_bias", scale)):
        if part in parts:
            bias = Dense(parts[part].reshape(-1), factor)
    if form.kind == "bias":
        return Adapter(None, bias, form.kind, scale)
    effect = _effect(parts, form, rows, columns, scale, peaks, stem)
    _check_product(form, scale, peaks)
    kind = form.kind
    magnitude = _magnitude(parts, rows, columns)
    if magnitude is not None:
        if not isinstance(effect, Additive):
            raise Unfit(f"has a DoRA magnitude on {kind}, which no trainer writes")
        effect = Dora(effect, magnitude)
        kind = "DoRA" if kind == "LoRA" else f"{kind} with DoRA"
    return Adapter(effect, bias, kind, scale)


_SCALARS = frozenset({"alpha", "scaled_oft", "on_input", "reshape"})


def _check(part: str, tensor: Tensor, peak: float) -> None:
    if not tensor.is_floating_point():
        name = str(tensor.dtype).removeprefix("torch.")
        raise Unfit(f"is stored as {name}, without the scale that would give it a meaning")
    if not math.isfinite(peak):
        raise NotFinite(f"holds NaN or infinity in {part}")


def _check_product(form: Geometry, scale: float, peaks: Mapping[str, float]) -> None:
    """Refuse finite factors whose product is not: it would put infinity into the model."""
    if form.kind not in ("LoRA", "LoHa", "LoKr", "GLoRA"):
        return
    bound = abs(scale) * max(form.rank or 1, 1) ** 2
    for part, peak in peaks.items():
        if part.startswith(("up", "down", "mid", "hada", "lokr", "glora")) and part != "up_bias":
            bound *= peak
    if bound > torch.finfo(torch.float32).max:
        raise NotFinite("has factors so large that their product is infinite")


def _scalar(part: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise Unfit(f"has a {part} of {tensor.numel()} elements where one is needed")
    return float(tensor.reshape(()).double())


def _scale(
    parts: Mapping[str, Tensor], form: Geometry, stem: str, settings: PeftSettings | None
) -> float:
    if form.kind not in ("LoRA", "LoHa", "LoKr", "GLoRA"):
        return 1.0
    if "alpha" in parts:
        if form.rank is None:
            return 1.0  # full LoKr has no rank to divide by, and its alpha may be 1e10 or infinite
        alpha = _scalar("alpha", parts["alpha"])
        if not math.isfinite(alpha):
            raise NotFinite("has an alpha that is NaN or infinite")
        return alpha / max(form.rank, 1)
    if settings is not None and form.kind == settings.kind:
        return settings.scale(stem, form.rank)
    return 1.0


def _effect(
    parts: Mapping[str, Tensor], form: Geometry, rows: int, columns: int | None, scale: float,
    peaks: Mapping[str, float],
    stem: str,
) -> Additive | Transform:  # fmt: skip
    match form.kind:
        case "LoRA":
            return _low_rank(parts, scale, peaks)
        case "full-rank LoRA":
            return Dense(parts["down"].flatten(1), 1.0)
        case "full difference":
            diff = parts["diff"]
            return Dense(diff if columns is None else diff.flatten(1), 1.0)
        case "LoHa":
            a1, b1, a2, b2 = (
                parts[f"hada_{name}"].flatten(1) for name in ("w1_a", "w1_b", "w2_a", "w2_b")
            )
            return Hadamard(a1, b1, a2, b2, scale)
        case "LoKr":
            return Kronecker(_side(parts, "lokr_w1"), _side(parts, "lokr_w2"), scale)
        case "GLoRA":
            a1, a2, b1, b2 = (
                parts[f"glora_{name}"].flatten(1) for name in ("a1", "a2", "b1", "b2")
            )
            return GeneralizedLora(a1, a2, b1, b2, scale)
        case "OFTv2":
            return _oft_v2(parts, columns)
        case "OFT" | "BOFT":
            # LyCORIS bounds the rotation by alpha x the output width, ComfyUI's trainer by alpha.
            factor = 1 if stem.startswith("diffusion_model.") else rows
            return _oft(parts, form.kind, rows, factor)
        case _:
            return _channel_scale(parts, rows, columns)


def _low_rank(parts: Mapping[str, Tensor], scale: float, peaks: Mapping[str, float]) -> LowRank:
    up, down = parts["up"].flatten(1), parts["down"].flatten(1)
    if "mid" in parts:
        down = parts["mid"].flatten(1).float() @ down.float()
    large, small = max(peaks["up"], 2.0**-60), max(peaks["down"], 2.0**-60)
    return LowRank(up, down, scale, gain=2.0 ** round(math.log2(small / large) / 2))


def _side(parts: Mapping[str, Tensor], name: str) -> tuple[Tensor, ...]:
    if name in parts:
        return (parts[name].flatten(1),)
    return (parts[f"{name}_a"].flatten(1), parts[f"{name}_b"].flatten(1))


def _oft_v2(parts: Mapping[str, Tensor], columns: int | None) -> InputRotation:
    vectors = parts["oft_r"]
    count, elements = vectors.shape
    size = (1 + math.isqrt(1 + 8 * elements)) // 2
    if columns is None or columns % size or count not in (1, columns // size):
        raise Unfit(f"has OFT blocks of {size} for a width of {columns}")
    divisor = 1.0
    if "scaled_oft" in parts:
        # OneTrainer PR #1315: 2 sqrt(s - 1).
        divisor = 2 * math.sqrt(size - 1)
    return InputRotation(vectors, divisor)


def _oft(
    parts: Mapping[str, Tensor], kind: str, rows: int, factor: int
) -> BlockRotation | Butterfly:
    """``alpha`` is the constraint; ``factor`` makes it the bound of the skew part's norm."""
    limit = _scalar("alpha", parts["alpha"]) * factor if "alpha" in parts else 0.0
    if not math.isfinite(limit):
        raise NotFinite("has an alpha that is NaN or infinite")
    rescale = parts.get("rescale")
    if rescale is not None and rescale.numel() != rows:
        raise Unfit(f"rescales {rescale.numel()} rows of {rows}")
    blocks = parts["oft_blocks"]
    if kind == "OFT":
        return BlockRotation(blocks, rescale, limit)
    half = blocks.shape[-1] // 2
    if blocks.shape[-1] % 2 or rows % (2 ** blocks.shape[0] * half):
        raise Unfit(f"has {blocks.shape[0]} butterfly stages, too many for {rows} rows")
    return Butterfly(blocks, rescale, limit)


def _channel_scale(parts: Mapping[str, Tensor], rows: int, columns: int | None) -> ChannelScale:
    if "ia3_l" in parts:
        # PEFT keeps the factor itself, LyCORIS its difference from 1.
        return ChannelScale(parts["ia3_l"].float() - 1)
    on_input = bool(_scalar("on_input", parts["on_input"]))
    change = parts["weight"].reshape(-1)
    if change.numel() != (columns if on_input else rows):
        side = "inputs" if on_input else "outputs"
        raise Unfit(f"scales {change.numel()} {side} of a weight of {rows} x {columns}")
    return ChannelScale(change.reshape(1, -1) if on_input else change.reshape(-1, 1))


def _magnitude(parts: Mapping[str, Tensor], rows: int, columns: int | None) -> Tensor | None:
    """The DoRA magnitude as (rows, 1) or (1, columns); PEFT and ai-toolkit write one per row."""
    if "magnitude" in parts:
        magnitude = parts["magnitude"]
        if magnitude.numel() != rows:
            raise Unfit(f"has a DoRA magnitude of {magnitude.numel()} for {rows} rows")
        return magnitude.reshape(-1, 1)
    if "dora_scale" not in parts:
        return None
    scale = parts["dora_scale"]
    shape = tuple(scale.shape[:2])
    if shape == (rows, 1) or (scale.ndim == 1 and scale.numel() == rows != columns):
        return scale.reshape(-1, 1)
    if shape == (1, columns) or (scale.ndim == 1 and scale.numel() == columns != rows):
        return scale.reshape(1, -1)
    raise Unfit(f"has a dora_scale of shape {list(scale.shape)} for a weight of {rows} x {columns}")
