"""The multipliers of a stack's LoRAs in one run of the diffusion model, on its device.

That of LoRA p for token t of picture n: schedule_p(step) * picture_p(n) * region_p(n, t). Nothing
here waits for the device.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .region import IMAGE, JOINT, NONE, TEXT, Region
from .schedule import STEPS, Schedule
from .text import ModifierError

Modifier = Schedule | Region
Kept = dict[Hashable, Tensor]
"""Tensors that the runs of one ``Weights`` have in common."""
_MOST_KEPT = 64


class Forward(NamedTuple):
    """What a run of the diffusion model tells of itself.

    ``rows`` of latents come in ``chunks`` (CFG's halves), each the whole batch of pictures.
    ``cells``: the latent's (height, width); ``text`` and ``references`` count tokens. ``sigma``
    (1,); ``sigmas`` (steps + 1,), the sampler's list, where it is known. ``noise``: the shape of
    all that is sampled, where that is known.
    """

    sigma: Tensor
    sigmas: Tensor | None
    rows: int
    chunks: int
    cells: tuple[int, int]
    text: int
    references: int
    noise: tuple[int, ...] | None
    percent_to_sigma: Callable[[float], float]

    @property
    def pictures(self) -> int:
        """Pictures of the batch."""
        return self.rows // self.chunks


@dataclass(frozen=True, eq=False)
class Weights:
    """Of a stack of ``count`` LoRAs, of which some have schedules or regions, or both: each with
    the LoRA's number in the stack and its name."""

    count: int
    schedules: tuple[tuple[int, str, Schedule], ...]
    regions: tuple[tuple[int, str, Region], ...]

    def rows(self, run: Forward, kept: Kept) -> Tensor | None:
        """(1 or rows, count): the LoRAs' multipliers by step and picture; None where all are 1.

        Raises ModifierError for what this run has no use for.
        """
        if not self.schedules:
            return None
        columns = torch.ones(1, self.count, device=run.sigma.device)
        for number, name, schedule in self.schedules:
            columns[:, number] *= _now(schedule, name, run, kept)
        if not any(schedule.pictures for _, _, schedule in self.schedules):
            return columns
        return columns * _kept(kept, (run.rows, run.chunks), run, self._by_picture)

    def tokens(self, run: Forward, kept: Kept) -> dict[str, Tensor]:
        """Stream -> (1 or rows, tokens or 1, count) by token; empty where all are 1.

        Raises ModifierError for what this run has no use for.
        """
        if not self.regions:
            return {}
        self._check(run)
        size = (run.rows, run.chunks, run.cells, run.text, run.references)
        return {
            stream: _kept(kept, (stream, *size), run, partial(self._by_token, stream))
            for stream in (IMAGE, TEXT, JOINT, NONE)
        }

    def _by_picture(self, run: Forward) -> Tensor:
        table = torch.ones(run.pictures, self.count)
        for number, name, schedule in self.schedules:
            if schedule.pictures and len(schedule.pictures) != run.pictures:
                raise ModifierError(
                    f"{name}: pictures has {len(schedule.pictures)} multipliers, and the batch has "
                    f"{run.pictures} pictures. Give one each, or set the batch_size of FLUX.2 Edit "
                    "Image Size to as many."
                )
            if schedule.pictures:
                table[:, number] *= torch.tensor(schedule.pictures)
        return table.repeat(run.chunks, 1)

    def _by_token(self, stream: str, run: Forward) -> Tensor:
        parts = [[torch.ones(1, 1)] for _ in range(self.count)]
        for number, _, region in self.regions:
            parts[number].append(region.tokens(stream, run.cells, run.text, run.references))
        table = torch.stack(torch.broadcast_tensors(*map(prod, parts)), -1)
        return table.repeat(run.chunks, 1, 1) if len(table) > 1 else table

    def _check(self, run: Forward) -> None:
        """Raises ModifierError where a mask would not lie on the picture."""
        for _, name, region in self.regions:
            count = 1 if region.mask is None else len(region.mask)
            if count not in (1, run.pictures):
                raise ModifierError(
                    f"{name}: its region has {count} masks, and the batch has {run.pictures} "
                    "pictures. Give one mask, or one for each picture."
                )
        noise, seen = run.noise, (run.pictures, *run.cells)
        if noise is not None and (noise[0], *noise[-2:]) != seen:
            raise ModifierError(
                f"{self.regions[0][1]} has a region, and the model is shown a part of the "
                "picture at a time: an area conditioning or a tiled sampler. Use a mask "
                "conditioning instead, or no LoRA region."
            )


def weights_of(stack: Sequence[tuple[str, Sequence[Modifier]]]) -> Weights | None:
    """Of a stack of LoRAs, as their names and modifiers; None where none has any."""
    every = [(n, name, by) for n, (name, modifiers) in enumerate(stack) for by in modifiers]
    if not every:
        return None
    schedules = ((n, name, by) for n, name, by in every if isinstance(by, Schedule))
    regions = ((n, name, by) for n, name, by in every if isinstance(by, Region))
    return Weights(len(stack), tuple(schedules), tuple(regions))


def _now(schedule: Schedule, name: str, run: Forward, kept: Kept) -> Tensor:
    """The multiplier (1,) at the run's sigma."""
    if schedule.clock == STEPS:
        if run.sigmas is None:
            raise ModifierError(
                f"{name} has a schedule by steps, and this sampler does not tell its steps. Set "
                "the clock of FLUX.2 LoRA Schedule to core percent."
            )
        steps = max(len(run.sigmas) - 1, 1)
        table = _kept(kept, (schedule, steps), run, lambda _: torch.tensor(schedule.by_step(steps)))
        sigmas = run.sigmas[:steps].to(run.sigma.device)
        return table.index_select(0, (sigmas - run.sigma).abs().argmin(0, keepdim=True))
    of = run.percent_to_sigma
    # By what it answers: a node behind the LoRAs may have put another in its place.
    key = (schedule, *map(of, (0.25, 0.5, 0.75)))
    table = _kept(kept, key, run, lambda _: torch.tensor(schedule.by_sigma(of)))
    place = (table[:, 0] >= run.sigma).sum(0, keepdim=True) - 1
    return table[:, 1].index_select(0, place.clamp_(min=0))


def _kept(kept: Kept, key: Hashable, run: Forward, make: Callable[[Forward], Tensor]) -> Tensor:
    """What ``make`` makes, on the run's device; made once."""
    key = (key, run.sigma.device)
    if key not in kept:
        if len(kept) >= _MOST_KEPT:
            kept.clear()
        kept[key] = make(run).to(run.sigma.device)
    return kept[key]
