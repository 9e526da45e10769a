"""From rows to jobs: what each sets in the graph, in an order in which weights change seldom.

Everything is checked here, before the first picture: what is wrong is counted by column and kind,
so that 100,000 bad rows are a few lines of text.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .binding import SEEDS, Column, bind
from .cells import Draft, Reader, own_problems
from .graph import Graph, Place, is_link
from .names import Refused, check_ids
from .table import Row

LOADED = {"MODEL", "CLIP", "VAE"}
WEIGHTS = {*LOADED, "LORA_STACK"}
LOADERS, CHANGERS, OTHERS = range(3)
"""How dear a change is: files are loaded anew, LoRAs are put on, or nothing of both."""
SAMPLED = {"LATENT", "NOISE"}
HOSTED = "Flux2EditRunComfy"
"""A node whose runs are paid for: its seed is never left to chance."""
MOST_PROBLEMS = 36
MOST_JOBS = 32


class Job(NamedTuple):
    """One row, ready to run.

    ``key`` is a fingerprint of all that makes its pictures (not of its id). ``pictures`` are
    (node id, input, absolute path): uploaded first, and the server's name for it goes into the
    input. ``labels``: column -> what the table says. ``seed``: what the sampler gets; None where
    the graph has none, several, or a linked one.
    """

    id: str
    key: str
    inputs: tuple[tuple[str, str, Any], ...]
    pictures: tuple[tuple[str, str, str], ...]
    labels: dict[str, str]
    seed: int | None


class Plan(NamedTuple):
    """Jobs in the order to run them, and runs of neighbours, each for one server.

    ``weights`` are the inputs that decide which models and LoRAs are loaded. ``rows``: the jobs'
    ids in the table's order.
    """

    jobs: list[Job]
    chunks: list[slice]
    weights: frozenset[Place] = frozenset()
    rows: tuple[str, ...] = ()


def make_plan(
    graph: Mapping[str, Any],
    info: Mapping[str, Any],
    rows: Sequence[Row],
    relative_to: Path,
    most: int = MOST_JOBS,
) -> Plan:
    """The jobs of ``rows`` in ``graph`` (API format), of which a server gets ``most`` at a time.

    ``info`` is the server's ``/object_info``; the rows' pictures are relative to ``relative_to``.
    A pattern (``ckpt-*``) for an input that chooses from a list makes a job of each match. Raises
    Refused with all that is wrong in graph, columns and rows.
    """
    checked = Graph(graph, info)
    names = dict.fromkeys(column for row in rows for column in row.values)
    columns, problems = bind(checked, names)
    # The choice of a dynamic combo is read before what stands under it.
    columns.sort(key=lambda column: max(len(form.when) for form in column.forms))
    reader = Reader(checked, columns, relative_to)
    drafts = reader.read(rows)
    problems += check_ids([(one.id, f"row {number}") for number, one in enumerate(drafts, 1)])
    problems += [*own_problems(checked, columns, rows), *reader.findings.texts()]
    if not rows:
        problems.append("There is no row to run.")
    if problems:
        raise Refused(*_shortened(problems))
    positions = {name: position for position, name in enumerate(names)}
    ranks = {one.name: (*_rank(checked, one.node), positions[one.name]) for one in columns}
    order = sorted(range(len(columns)), key=lambda number: ranks[columns[number].name])
    weights = frozenset((one.node, one.input) for one in columns if ranks[one.name][0] < OTHERS)
    jobs = _jobs(checked, columns, _sorted(checked, columns, order, drafts))
    rows_in_order = tuple(draft.id for draft in drafts)
    return Plan(jobs, chunks(jobs, weights, most), weights, rows_in_order)


def chunks(jobs: Sequence[Job], weights: frozenset[Place], most: int) -> list[slice]:
    """Runs of at most ``most`` neighbours; jobs of equal weights stay together where they fit."""
    found: list[slice] = []
    start = end = 0
    for _, group in itertools.groupby(jobs, key=lambda job: weights_of(job, weights)):
        size = sum(1 for _ in group)
        if end > start and end + size - start > most:
            found.append(slice(start, end))
            start = end
        end += size
        # A long group is cut into parts of about one size.
        parts = -(-(end - start) // most)
        while parts > 1:
            cut = start + -(-(end - start) // parts)
            found.append(slice(start, cut))
            start, parts = cut, parts - 1
    return [*found, slice(start, end)] if end > start else found


def weights_of(job: Job, weights: frozenset[Place]) -> tuple[tuple[str, str, Any], ...]:
    """What a job sets of the inputs that decide which models and LoRAs are loaded."""
    return tuple(one for one in (*job.inputs, *job.pictures) if one[:2] in weights)


def weight_changes(jobs: Iterable[Job], weights: frozenset[Place]) -> int:
    """How often models or LoRAs change when the jobs run one after another."""
    return max(0, sum(1 for _ in itertools.groupby(weights_of(one, weights) for one in jobs)) - 1)


def _rank(graph: Graph, node: str) -> tuple[int, int]:
    """What a change of the node costs: what it loads anew, then how much of the graph it reaches.

    Sorts what costs most to the front.
    """
    reached = graph.downstream(node)
    touched = [one for one in (node, *reached) if WEIGHTS.intersection(graph.outputs(one))]
    loads = any(
        LOADED.intersection(graph.outputs(one)) and not WEIGHTS & graph.takes(one)
        for one in touched
    )
    return LOADERS if loads else CHANGERS if touched else OTHERS, -len(reached)


def _sorted(
    graph: Graph, columns: Sequence[Column], order: Sequence[int], drafts: Sequence[Draft]
) -> list[Draft]:
    """By the columns' values, the one that costs most first; equal ones stay as they stand."""
    # A number for each draft, in which the columns' ranks are digits.
    ranks = [0] * len(drafts)
    for number in order:
        own = _comparable(graph.own_value(columns[number].node, columns[number].input))
        column = [draft.settings[number] for draft in drafts]
        # Equal cells share a setting: what they come to is compared once.
        keys = {
            one: own if setting is None else _comparable(setting.place[2])
            for one, setting in dict(zip(map(id, column), column, strict=True)).items()
        }
        positions = {key: position for position, key in enumerate(sorted(set(keys.values())))}
        ranked = {one: positions[key] for one, key in keys.items()}
        ranks = [
            rank * len(positions) + ranked[one]
            for rank, one in zip(ranks, map(id, column), strict=True)
        ]
    return [drafts[one] for one in sorted(range(len(drafts)), key=ranks.__getitem__)]


def _comparable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (bool, int, float)):
        return 0, value, ""
    return 1, 0, value if isinstance(value, str) else ""


def _jobs(graph: Graph, columns: Sequence[Column], drafts: Iterable[Draft]) -> list[Job]:
    # In the order of the addresses: a table with its columns swapped makes the same jobs.
    by_place = sorted(range(len(columns)), key=lambda one: columns[one][1:3])
    base = _graph_mark(graph)
    seeds = {place: graph.own_value(*place) for place in _seed_places(graph)}
    hosted = [
        node
        for node, content in graph.nodes.items()
        if content["class_type"] == HOSTED and not is_link(content["inputs"].get("seed"))
    ]
    jobs = []
    for draft in drafts:
        chosen = [one for number in by_place if (one := draft.settings[number]) is not None]
        key = _digest(base, *(one.mark for one in chosen))
        places = {one.place[:2]: one.place for one in chosen if not one.picture}
        for node in hosted:
            place, own = (node, "seed"), graph.nodes[node]["inputs"].get("seed")
            if (places[place][2] if place in places else own) in (None, -1):
                # Drawn by the node, each attempt would be another request, and paid again.
                drawn = int(_digest(key, draft.id, node)[:8], 16) % 2**31
                places[place] = (*place, drawn)
                key = _digest(key, str(drawn))
        pictures = tuple(one.place for one in chosen if one.picture)
        seed = _seed(seeds, places)
        jobs.append(Job(draft.id, key, tuple(places.values()), pictures, draft.labels, seed))
    return jobs


def _graph_mark(graph: Graph) -> str:
    """A fingerprint of what runs: titles are not of it."""
    content = {node: [one["class_type"], one["inputs"]] for node, one in graph.nodes.items()}
    return _digest(json.dumps(content, sort_keys=True))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _seed_places(graph: Graph) -> list[Place]:
    """The seeds of what samples; of any node that has one, where nothing that samples does."""
    places = [(node, name) for node in graph.nodes for name in SEEDS if name in graph.inputs[node]]
    sampling = [
        place
        for place in places
        if SAMPLED.intersection(graph.outputs(place[0]))
        or graph.nodes[place[0]]["class_type"] == HOSTED
    ]
    return sampling or places


def _seed(seeds: Mapping[Place, Any], places: Mapping[Place, tuple[str, str, Any]]) -> int | None:
    """The one value that all of ``seeds`` (place -> the graph's own) have in a job."""
    values = {places[place][2] if place in places else own for place, own in seeds.items()}
    value = values.pop() if len(values) == 1 else None
    return value if type(value) is int else None


def _shortened(problems: Sequence[str]) -> list[str]:
    more = len(problems) - MOST_PROBLEMS
    last = [f"And {more:,} more like these."] if more > 0 else []
    return [*problems[:MOST_PROBLEMS], *last]
