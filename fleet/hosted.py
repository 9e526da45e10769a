"""Rows that RunComfy is paid for: what each may cost, asked before anything is sent.

That a request is paid once is the node's own work: it finds the same request in its journal, which
all servers of the driver's machine share. Here is only the sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .rows.plan import HOSTED, Job

BATCH, MODE, LIMIT = "batch_count", "mode", "max_cost"
CENT_PARTS = 6


class Unpriced(ValueError):
    """What a hosted row costs cannot be known; the text says why, and what to do."""


def nodes(graph: Mapping[str, Any]) -> list[str]:
    """The ids of the hosted nodes in ``graph``."""
    return [name for name, node in graph.items() if node.get("class_type") == HOSTED]


def costs(
    graph: Mapping[str, Any], jobs: Sequence[Job], answer: Mapping[str, Any]
) -> dict[str, float]:
    """US dollars that each row may cost by RunComfy's catalogue, by the row's id.

    answer: what the pack's route ``/flux2-lora-edit/prices`` said. Raises Unpriced.
    """
    if not answer.get("set"):
        raise Unpriced(
            "The graph has a RunComfy node, and no token is set: set RUNCOMFY_API_TOKEN, or put "
            "one into ComfyUI's Settings, FLUX.2 LoRA Edit."
        )
    prices = {mode: price.get("usd") for mode, price in answer["prices"].items()}
    if not prices or None in prices.values():
        raise Unpriced(
            "RunComfy's catalogue states no price at the moment, so that this run could not be "
            "bounded. Nothing was submitted; try again later."
        )
    return {job.id: _cost(graph, job, prices) for job in jobs}


def in_words(usd: Mapping[str, float]) -> str:
    """What all rows cost, for the person who waits."""
    if not usd:
        return "nothing is paid"
    return f"RunComfy is paid ${sum(usd.values()):.3f} at most, by its catalogue"


def check_limit(usd: Mapping[str, float], max_cost: float | None) -> None:
    """Raises Unpriced where a run is paid and nobody has said how much it may be."""
    if usd and max_cost is None:
        raise Unpriced(f"Say how much the run may cost: --max-cost {sum(usd.values()):.3f}")


def bounded(graph: Mapping[str, Any], job: Job, usd: float) -> Job:
    """``job`` with its cost as the nodes' own limit: a price that rises meanwhile is not paid."""
    limits = []
    for name in nodes(graph):
        own = _value(graph, job, name, LIMIT, 0.0)
        limits.append((name, LIMIT, min(own, usd) if own else usd))
    return job._replace(inputs=(*job.inputs, *limits))


def _cost(graph: Mapping[str, Any], job: Job, prices: Mapping[str, float]) -> float:
    total = 0.0
    for name in nodes(graph):
        mode, batch = _value(graph, job, name, MODE, ""), _value(graph, job, name, BATCH, 1)
        total += prices.get(mode, max(prices.values())) * batch
    return round(total, CENT_PARTS)


def _value(graph: Mapping[str, Any], job: Job, node: str, name: str, default: Any) -> Any:
    """An input of a hosted node as the row has it. Raises Unpriced where a node feeds it."""
    value = graph[node]["inputs"].get(name, default)
    for own, input_name, given in job.inputs:
        if (own, input_name) == (node, name):
            value = given
    if isinstance(value, list):
        raise Unpriced(
            f"{name} of the RunComfy node {node} is linked, so that the cost of a row is not "
            "known beforehand. Set it in the node, or by a column."
        )
    return value
