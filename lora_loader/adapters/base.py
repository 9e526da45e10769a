"""What adapters share: an effect on a weight, and an algorithm that makes one of a file's tensors.

Weights are (out, in). Scales are numbers; ``strength`` is the user's, on top of the file's own
alpha / rank. Factors keep their file's type; products are made in float32.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]

BLOCK_BYTES = 16 * 2**20
"""The most that a block of rows takes in float32: it stays in a CPU's or GPU's last cache."""


def blocks(weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The weight's rows in blocks of ``BLOCK_BYTES`` as float32: the first row, and the view."""
    count = max(BLOCK_BYTES // (4 * max(weight[:1].numel(), 1)), 1)
    for first in range(0, weight.shape[0], count):
        yield first, weight[first : first + count]


class Unfit(ValueError):
    """Tensors that make no adapter together; the message completes "<module> ..."."""


class Unpaired(Unfit):
    """A factor without its other half."""


class Unsupported(Unfit):
    """An adapter of a kind that cannot be applied to this model exactly."""


class NotFinite(Unfit):
    """NaN or infinity in a file: training broke, or the file did."""


class Additive:
    """Adds a change to the weight, whatever the weight is.

    ``kind`` is what messages call it. ``by_row`` are the fields with one row for each row of the
    weight, ``by_all`` those that every row of the weight needs whole.
    """

    kind: ClassVar[str]
    by_row: ClassVar[tuple[str, ...]] = ()
    by_all: ClassVar[tuple[str, ...]] = ()

    def dense(self) -> Tensor:
        """The change (out, in) at strength 1, in float32."""
        raise NotImplementedError

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        """Add the change's rows from ``first`` on to ``weight``, as many as it has."""
        raise NotImplementedError

    def prepared(self) -> Any:
        """The same effect, ready in float32 for whoever adds it block by block."""
        return self._with(self.by_all, Tensor.float)

    def rolled(self) -> Any:
        """The same effect on a weight whose two halves of rows lie the other way round."""
        return self._with(self.by_row, rolled)

    def _with(self, names: tuple[str, ...], change: Callable[[Tensor], Tensor]) -> Any:
        changed = {name: change(getattr(self, name)) for name in names}
        return replace(self, **changed)  # type: ignore[type-var]


class Transform:
    """A function of the weight; in a stack, of the weight as the entries before left it.

    At scale s the weight becomes ``W + s * (trained(W) - W)``: 0 is the base, 1 the trainer's own
    maths.
    """

    kind: ClassVar[str]

    def trained(self, weight: Tensor) -> Tensor:
        """The trained weight for a float32 weight (out, in)."""
        raise NotImplementedError

    def rolled(self) -> "Transform":
        """The same on a weight whose two halves of rows lie the other way round."""
        return Rolled(self)


@dataclass(frozen=True, eq=False)
class Rolled(Transform):
    """``effect`` on the weight with its halves of rows exchanged, as the trainer had them."""

    effect: Transform

    @property
    def kind(self) -> str:  # type: ignore[override]
        """That of ``effect``."""
        return self.effect.kind

    def trained(self, weight: Tensor) -> Tensor:
        """The halves exchanged, trained, and exchanged again."""
        return rolled(self.effect.trained(rolled(weight)))


class Geometry(NamedTuple):
    """Rows and columns of the weight that an adapter is for (None: any), and rank if it has one."""

    rows: int | None
    columns: int | None
    rank: int | None = None


class Given(NamedTuple):
    """An adapter's tensors and their largest magnitudes by role; rows and columns of its weight.

    ``columns`` is None for a norm, ``scale`` what the file's settings say, ``stem`` the module's
    name in the file.
    """

    tensors: Mapping[str, Tensor]
    peaks: Mapping[str, float]
    rows: int
    columns: int | None
    scale: float
    stem: str

    def matrices(self, *roles: str) -> list[Tensor]:
        """The tensors of these roles; a convolution of kernel 1 is the same matrix."""
        return [self.tensors[role].flatten(1) for role in roles]

    def number(self, role: str) -> float:
        """The only element of a tensor; raises Unfit where there are others."""
        tensor = self.tensors[role]
        if tensor.numel() != 1 or tensor.is_complex():
            raise Unfit(f"has a {role} of {tensor.numel()} elements where a real one is needed")
        return float(tensor.reshape(()).double())


class Algorithm:
    """One algorithm of adapters: how a file spells it, what makes one, and what it does.

    A new one is a subclass in its own module and a line in ``adapters.ALGORITHMS``.
    """

    name: ClassVar[str] = ""
    """As the report calls it."""
    name_with_dora: ClassVar[str] = ""
    """Likewise with a DoRA magnitude, where that has a name of its own."""
    endings: ClassVar[Mapping[str, str]] = {}
    """The words that end a tensor's key -> its role."""
    named_endings: ClassVar[Mapping[str, str]] = {}
    """Likewise, where PEFT writes an adapter's name behind them."""
    required: ClassVar[tuple[str, ...]] = ()
    """The roles that it needs all of."""
    factors: ClassVar[tuple[str, ...]] = ()
    """The roles whose product it is. With them, alpha / rank scales it."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Roles that add to an adapter but are none by themselves."""
    numbers: ClassVar[tuple[str, ...]] = ()
    """Roles of settings in a tensor, which may be of any type."""
    unsupported: ClassVar[Mapping[str, str]] = {}
    """Role -> what it is, of forms that cannot be applied."""
    peft_type: ClassVar[str | None] = None
    """What PEFT calls it in its settings."""
    fits_norm: ClassVar[bool] = False
    """Whether it may be for a vector; then it is for one where it has no columns."""

    def geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        """What tensors of these shapes by role are for; None where they are another algorithm's.

        Raises Unpaired or Unfit.
        """
        present = [role for role in self.required if role in shapes]
        if len(present) < len(self.required):
            if not present:
                return None
            missing = ", ".join(role for role in self.required if role not in shapes)
            raise Unpaired(f"has {', '.join(present)} but not {missing}")
        return self._geometry(shapes)

    def check(self, geometry: Geometry, target: Shape) -> None:
        """Raises Unfit or Unsupported where the adapter is not for a weight of this shape."""
        made: Shape = (target[0] if geometry.rows is None else geometry.rows,)
        if geometry.columns is not None:
            made += (geometry.columns,)
        elif not self.fits_norm:
            made += target[1:]
        if made != target:
            was, needs = (" x ".join(map(str, shape)) for shape in (made, target))
            raise Unfit(f"was made for a weight of {was}; the model's is {needs}")
        if len(target) == 1 and not self.fits_norm:
            raise Unsupported(f"is {self.name} on a norm")

    def read(self, given: Given, rank: int | None) -> tuple[Additive | Transform | None, float]:
        """The effect on the weight, None where there is none; and the file's own scale in it.

        That is alpha / rank, or what its settings say. Raises NotFinite or Unfit.
        """
        scale = given.scale if self.factors else 1.0
        if self.factors and "alpha" in given.tensors:
            # Full LoKr has no rank to divide by, and its alpha may be 1e10 or infinite.
            alpha = 1.0 if rank is None else given.number("alpha")
            if not isfinite(alpha):
                raise NotFinite("has an alpha that is NaN or infinite")
            scale = alpha / max(rank or 1, 1)
        effect = self._read(given._replace(scale=scale))
        # Finite factors whose product is not would put infinity into the model.
        bound = abs(scale) * max(rank or 1, 1) ** 2
        for role in self.factors:
            bound *= given.peaks.get(role, 1.0)
        if self.factors and bound > torch.finfo(torch.float32).max:
            raise NotFinite("has factors so large that their product is infinite")
        return effect, scale

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        """``geometry`` where all that is required is there."""
        raise NotImplementedError

    def _read(self, given: Given) -> Additive | Transform | None:
        """The effect at the scale that is given."""
        return None


def matrix(shape: Shape) -> tuple[int, int]:
    """(rows, columns); a convolution of kernel 1 is the same matrix. Raises Unfit."""
    if len(shape) < 2:
        raise Unfit(f"has a factor of shape {list(shape)} where a matrix is needed")
    return shape[0], prod(shape[1:])


def rolled(rows: Tensor) -> Tensor:
    """The two halves of the rows exchanged."""
    return torch.roll(rows, rows.shape[0] // 2, dims=0)
