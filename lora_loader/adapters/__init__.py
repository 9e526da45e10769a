"""What an adapter does to a weight: added to it, or a function of it. Torch only, no host.

``recognise`` tells from shapes which algorithm a module's tensors are of, ``read_adapter`` makes
the adapter of them.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from . import base, difference, dora, glora, ia3, loha, lokr, lora, oft
from .base import Algorithm, Geometry, Unfit

ALGORITHMS: tuple[Algorithm, ...] = (
    lora.FullRankLora(),
    lora.Lora(),
    loha.Loha(),
    glora.Glora(),
    lokr.Lokr(),
    difference.Difference(),
    oft.OftV2(),
    oft.Boft(),
    oft.Oft(),
    ia3.LycorisIa3(),
    ia3.PeftIa3(),
    difference.Bias(),
    dora.Magnitude(),
)
"""Every algorithm. The first that knows a module's tensors has them."""


class Adapter(NamedTuple):
    """What a module's adapter does to its weight and bias; its algorithm's name, and its scale."""

    effect: base.Additive | base.Transform | None
    bias: difference.Dense | None
    name: str
    scale: float


def recognise(shapes: Mapping[str, base.Shape]) -> tuple[Algorithm, Geometry]:
    """The algorithm of tensors of these shapes by role, and the weight that they are for.

    Raises Unpaired, Unsupported or Unfit.
    """
    for algorithm in ALGORITHMS:
        for role, what in algorithm.unsupported.items():
            if role in shapes:
                raise base.Unsupported(f"holds {what}, and that is not supported")
    for algorithm in ALGORITHMS:
        geometry = algorithm.geometry(shapes)
        if geometry is not None:
            return algorithm, geometry
    raise base.Unpaired(f"has only {', '.join(sorted(shapes))}")


def read_adapter(algorithm: Algorithm, rank: int | None, given: base.Given) -> Adapter:
    """The adapter that a module's tensors make, where their shapes were recognised.

    Raises NotFinite or Unfit (whose message completes "<module> ...").
    """
    numbers = {role for known in ALGORITHMS for role in known.numbers}
    for role, tensor in given.tensors.items():
        if role in numbers:
            continue
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise Unfit(f"is stored as {kind}, without the scale that would give it a meaning")
        if not math.isfinite(given.peaks[role]):
            raise base.NotFinite(f"holds NaN or infinity in {role}")
    (effect, scale), name = algorithm.read(given, rank), algorithm.name
    bias = None
    for role, of_bias in (("diff_b", 1.0), ("up_bias", scale)):  # a LoRA's own is scaled as it is
        if role in given.tensors:
            bias = difference.Dense(given.tensors[role].reshape(-1), of_bias)
    if effect is not None and not given.tensors.keys().isdisjoint(dora.Magnitude.companions):
        if not isinstance(effect, base.Additive):
            raise Unfit(f"has a DoRA magnitude on {name}, which no trainer writes")
        effect = dora.Dora(effect, dora.read_magnitude(given))
        name = algorithm.name_with_dora or f"{name} with DoRA"
    return Adapter(effect, bias, name, scale)
