"""Adapters by their papers' and trainers' published maths, in float64, one function a family.

Each takes the module's own weight ``w`` [out, in] (float64), draws the trained tensors, casts them
to the file's dtype, and returns ``(parts, delta)``: the tensors by their key's ending, and the
dense change that the trainer's forward pass makes with exactly those (cast) tensors.
"""

import math

import torch
from torch import Generator, Tensor

Parts = dict[str, Tensor]
AB = ("lora_A.weight", "lora_B.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")
STRENGTH = 0.3
"""Size of a change beside the weight it changes: large enough that every fault shows."""


def draw(g: Generator, *shape: int, std: float = 1.0, dtype: torch.dtype) -> Tensor:
    return (torch.randn(shape, generator=g) * std).to(dtype)


def lora(
    w: Tensor,
    g: Generator,
    dtype: torch.dtype,
    rank: int = 8,
    alpha: float | None = None,
    scale: float = 1.0,
    names: tuple[str, str] = AB,
) -> tuple[Parts, Tensor]:
    """LoRA (arXiv 2106.09685): alpha / rank * B A. ``alpha`` goes into the file, ``scale`` not."""
    down = draw(g, rank, w.shape[1], std=w.shape[1] ** -0.5, dtype=dtype)
    up = draw(g, w.shape[0], rank, std=STRENGTH * rank**-0.5, dtype=dtype)
    parts = {names[0]: down, names[1]: up}
    if alpha is not None:
        parts["alpha"] = torch.tensor(alpha, dtype=dtype)
        scale = alpha / rank
    return parts, scale * (up.double() @ down.double())


def decompose(w: Tensor, delta: Tensor, magnitude: Tensor, axis: str) -> Tensor:
    """DoRA (arXiv 2402.09353): m * (W + D) / ||W + D|| - W, a norm per output or per input."""
    moved = w + delta
    norm = moved.norm(dim=1 if axis == "out" else 0, keepdim=True)
    return magnitude.double().reshape(norm.shape) * moved / norm - w


def magnitude(w: Tensor, g: Generator, dtype: torch.dtype, axis: str) -> Tensor:
    """A trained magnitude, [out, 1] or [1, in], near the weight's own norms."""
    norm = w.norm(dim=1 if axis == "out" else 0, keepdim=True)
    return (norm * (1 + 0.2 * torch.randn(norm.shape, generator=g, dtype=torch.float64))).to(dtype)


def loha(
    w: Tensor, g: Generator, dtype: torch.dtype, rank: int = 8, alpha: float | None = None
) -> tuple[Parts, Tensor]:
    """LoHa (arXiv 2108.06098): alpha / rank * (w1_a w1_b) o (w2_a w2_b)."""
    std = (STRENGTH / rank) ** 0.5 * w.shape[1] ** -0.125
    out, width = w.shape
    a1, a2 = (draw(g, out, rank, std=std, dtype=dtype) for _ in range(2))
    b1, b2 = (draw(g, rank, width, std=width**-0.125, dtype=dtype) for _ in range(2))
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}
    delta = (a1.double() @ b1.double()) * (a2.double() @ b2.double())
    if alpha is not None:
        parts["alpha"] = torch.tensor(alpha, dtype=dtype)
        delta = delta * (alpha / rank)
    return parts, delta


def factor_pair(size: int, factor: int) -> tuple[int, int]:
    """LoKr's split of a dimension: the smaller factor first, as LyCORIS and OneTrainer save it."""
    divisor = max(d for d in range(1, factor + 1) if size % d == 0)
    return min(divisor, size // divisor), max(divisor, size // divisor)


def lokr(
    w: Tensor,
    g: Generator,
    dtype: torch.dtype,
    factor: int = 8,
    rank: int | None = None,
    both: bool = False,
    alpha: float | None = None,
) -> tuple[Parts, Tensor]:
    """LoKr (arXiv 2309.14859): w1 (x) w2, times alpha / rank where a factor is decomposed.

    ``rank`` decomposes w2, ``both`` also w1. Full factors ignore ``alpha``, whatever it is.
    """
    (out_l, out_k), (in_m, in_n) = (factor_pair(size, factor) for size in w.shape)
    parts: Parts = {}
    std = w.shape[1] ** -0.5

    def matrix(name: str, rows: int, cols: int, std: float, low_rank: bool) -> Tensor:
        if not low_rank or rank is None:
            parts[name] = draw(g, rows, cols, std=std, dtype=dtype)
            return parts[name].double()
        parts[f"{name}_a"] = draw(g, rows, rank, std=std, dtype=dtype)
        parts[f"{name}_b"] = draw(g, rank, cols, std=rank**-0.5, dtype=dtype)
        return parts[f"{name}_a"].double() @ parts[f"{name}_b"].double()

    w1 = matrix("lokr_w1", out_l, in_m, STRENGTH, both)
    w2 = matrix("lokr_w2", out_k, in_n, std, True)
    delta = torch.kron(w1, w2)
    if alpha is not None:
        parts["alpha"] = torch.tensor(alpha, dtype=dtype)
        delta = delta * (alpha / rank if rank is not None else 1.0)
    return parts, delta


def full(w: Tensor, g: Generator, dtype: torch.dtype, name: str = "diff") -> tuple[Parts, Tensor]:
    """The change itself."""
    diff = draw(g, *w.shape, std=STRENGTH * w.shape[-1] ** -0.5, dtype=dtype)
    return {name: diff}, diff.double()


def skew(upper: Tensor, size: int) -> Tensor:
    """[blocks, n(n-1)/2] -> [blocks, n, n]: rows of the upper triangle, minus its transpose."""
    row, col = torch.triu_indices(size, size, 1)
    matrix = torch.zeros(upper.shape[0], size, size, dtype=torch.float64)
    matrix[:, row, col] = upper.double()
    return matrix - matrix.transpose(1, 2)


def oft_input(
    w: Tensor,
    g: Generator,
    dtype: torch.dtype,
    block: int = 16,
    scaled: bool = False,
    share: bool = False,
) -> tuple[Parts, Tensor]:
    """OneTrainer's OFT_2 (PEFT's OFT v2): the INPUT is rotated block by block, W' = W R^T.

    R = I + 2Q + 2Q^2 + 2Q^3 + Q^4, the Cayley-Neumann series of five terms; ``scaled`` divides the
    stored values by 2 sqrt(block - 1) first, and the file says so with ``oft_R.scaled_oft``.
    """
    blocks = 1 if share else w.shape[1] // block
    std = 0.05 * (2 * math.sqrt(block - 1) if scaled else 1)
    stored = draw(g, blocks, block * (block - 1) // 2, std=std, dtype=dtype)
    parts = {"oft_R.weight": stored}
    if scaled:
        parts["oft_R.scaled_oft"] = torch.tensor(True).to(dtype)
    q = skew(stored.double() / (2 * math.sqrt(block - 1) if scaled else 1), block)
    q2 = q @ q
    r = torch.eye(block, dtype=torch.float64) + 2 * q + 2 * q2 + 2 * (q2 @ q) + q2 @ q2
    r = r.expand(w.shape[1] // block, block, block)
    # y = W (x R): for one input row x, (x R) W^T = x (W R^T)^T.
    split = w.reshape(w.shape[0], -1, block)
    return parts, torch.einsum("orc,rkc->ork", split, r).reshape(w.shape) - w
