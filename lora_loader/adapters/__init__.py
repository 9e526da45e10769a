"""What an adapter does to a weight: added to it, or a function of it. Torch only, no host.

``recognise`` tells from shapes which algorithm a module's tensors are of, ``read_adapter`` makes
the adapter of them.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from .base import (
    Additive,
    Algorithm,
    Geometry,
    Given,
    NotFinite,
    Shape,
    Transform,
    Unfit,
    Unpaired,
    Unsupported,
    blocks,
)
from .difference import Bias, Dense, Difference
from .dora import Dora, Magnitude, read_magnitude
from .glora import GeneralizedLora, Glora
from .ia3 import ChannelScale, LycorisIa3, PeftIa3
from .loha import Hadamard, Loha
from .lokr import Kronecker, Lokr
from .lora import FullRankLora, Lora, LowRank
from .oft import BlockRotation, Boft, InputRotation, Oft, OftV2

__all__ = [
    "ALGORITHMS", "Adapter", "Additive", "Algorithm", "BlockRotation", "ChannelScale",
    "Dense", "Dora", "GeneralizedLora", "Geometry", "Given", "Hadamard", "InputRotation",
    "Kronecker", "Lora", "LowRank", "NotFinite", "Shape", "Transform", "Unfit", "Unpaired",
    "Unsupported", "blocks", "read_adapter", "recognise",
]  # fmt: skip

ALGORITHMS: tuple[Algorithm, ...] = (
    FullRankLora(),
    Lora(),
    Loha(),
    Glora(),
    Lokr(),
    Difference(),
    OftV2(),
    Boft(),
    Oft(),
    LycorisIa3(),
    PeftIa3(),
    Bias(),
    Magnitude(),
)
"""Every algorithm. The first that knows a module's tensors has them."""


class Adapter(NamedTuple):
    """What a module's adapter does to its weight and bias; its algorithm's name, and its scale."""

    effect: Additive | Transform | None
    bias: Dense | None
    name: str
    scale: float


def recognise(shapes: Mapping[str, Shape]) -> tuple[Algorithm, Geometry]:
    """The algorithm of tensors of these shapes by role, and the weight that they are for.

    Raises Unpaired, Unsupported or Unfit.
    """
    for algorithm in ALGORITHMS:
        for role, what in algorithm.unsupported.items():
            if role in shapes:
                raise Unsupported(f"holds {what}, and that is not supported")
    for algorithm in ALGORITHMS:
        geometry = algorithm.geometry(shapes)
        if geometry is not None:
            return algorithm, geometry
    raise Unpaired(f"has only {', '.join(sorted(shapes))}")


def read_adapter(algorithm: Algorithm, rank: int | None, given: Given) -> Adapter:
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
            raise NotFinite(f"holds NaN or infinity in {role}")
    (effect, scale), name = algorithm.read(given, rank), algorithm.name
    bias = None
    for role, of_bias in (("diff_b", 1.0), ("up_bias", scale)):  # a LoRA's own is scaled as it is
        if role in given.tensors:
            bias = Dense(given.tensors[role].reshape(-1), of_bias)
    if effect is not None and not given.tensors.keys().isdisjoint(Magnitude.companions):
        if not isinstance(effect, Additive):
            raise Unfit(f"has a DoRA magnitude on {name}, which no trainer writes")
        effect = Dora(effect, read_magnitude(given))
        name = algorithm.name_with_dora or f"{name} with DoRA"
    return Adapter(effect, bias, name, scale)
