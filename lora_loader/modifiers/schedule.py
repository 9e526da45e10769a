"""A LoRA's multiplier over the steps of a run, and for each picture of its batch."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from .text import ModifierError, parse_pictures, parse_schedule

_EASE: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "hold": lambda u: 0.0,
    "ease in": lambda u: u * u,
    "ease out": lambda u: u * (2 - u),
    "ease in out": lambda u: u * u * (3 - 2 * u),
}
BETWEEN = tuple(_EASE)
"""What the multiplier does between two moments; "hold" keeps the former's."""
CLOCKS = STEPS, CORE_PERCENT = "steps", "core percent"
_GRID = 1000
_LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Schedule:
    """(moment, multiplier) ``pairs`` in order, and one multiplier a picture of the batch, or none.

    By ``clock`` the moment of step i of N is i / N, or where the sigma lies in the host's percent
    of sampling, as the core's hooks have it. Before the first pair its multiplier holds.
    """

    pairs: tuple[tuple[float, float], ...]
    between: str = "linear"
    clock: str = STEPS
    pictures: tuple[float, ...] = ()

    @classmethod
    def read(cls, schedule: str, between: str, clock: str, pictures: str) -> "Schedule":
        """What the inputs of these names say. Raises ModifierError."""
        for name, given, taken in (("between", between, BETWEEN), ("clock", clock, CLOCKS)):
            if given not in taken:
                raise ModifierError(f"{name} is '{given}'; it takes {', '.join(taken)}.")
        return cls(parse_schedule(str(schedule)), between, clock, parse_pictures(str(pictures)))

    def at(self, moment: float) -> float:
        """The multiplier at a moment, 0 to 1. Of two pairs at one moment the later holds."""
        after = bisect_right(self.pairs, moment, key=lambda pair: pair[0])
        begin, low = self.pairs[max(after - 1, 0)]
        if after in (0, len(self.pairs)):
            return low
        end, high = self.pairs[after]
        return low + (high - low) * _EASE[self.between]((moment - begin) / (end - begin))

    def by_step(self, steps: int) -> list[float]:
        """The multiplier of each of so many steps."""
        return [self.at(step / steps) for step in range(steps)]

    def curve(self, steps: int) -> str:
        """A block character a step, the lowest for 0 or the least, the highest for the most."""
        values = self.by_step(steps)
        low = min(0.0, *values)
        span = max(0.0, *values) - low or 1.0
        return "".join(_LEVELS[round(7 * (value - low) / span)] for value in values)

    def by_sigma(self, percent_to_sigma: Callable[[float], float]) -> list[tuple[float, float]]:
        """(sigma, multiplier) pairs: of those whose sigma is not under the run's, the last holds.

        Exact with "hold", which is the core's keyframes; else in steps of a thousandth.
        """
        moments = {moment for moment, _ in self.pairs}
        if self.between != "hold":
            moments |= {number / _GRID for number in range(_GRID + 1)}
        return [(percent_to_sigma(moment), self.at(moment)) for moment in sorted(moments)]

    def describe(self) -> str:
        """For the report: "schedule 0:1, 1:0 (linear, steps), pictures 0, 0.5, 1"."""
        said = []
        if any(multiplier != 1 for _, multiplier in self.pairs):
            pairs = ", ".join(f"{moment:g}:{multiplier:g}" for moment, multiplier in self.pairs)
            said.append(f"schedule {pairs} ({self.between}, {self.clock})")
        if self.pictures:
            said.append("pictures " + ", ".join(f"{one:g}" for one in self.pictures))
        return ", ".join(said) or "schedule 1"
