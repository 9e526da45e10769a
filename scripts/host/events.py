"""What a run did, gathered from the server's websocket events.

Event names and binary frames: ComfyUI ``execution.py``, ``protocol.py`` and ``server.py``.
"""

import json
import struct
import time
from dataclasses import dataclass, field
from typing import Any

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4


@dataclass(frozen=True)
class NodeFailure:
    """The exception that ended a run, as the page shows it."""

    node_id: str
    node_type: str
    message: str
    exception_type: str
    traceback: str


@dataclass(frozen=True)
class Progress:
    """One step of one node's bar; ``display`` is the node of the page that it is shown on."""

    node: str
    display: str
    value: float
    maximum: float


@dataclass
class Result:
    """One run, from its queueing to its end.

    ``status`` is "success", "error" or "interrupted". ``executed`` and ``display`` hold, in order,
    the node that ran and the node of the queued graph that it belongs to (they differ inside an
    expanded node). ``seconds`` is wall time by node id, ``node_seconds`` by display node.
    """

    prompt_id: str
    status: str
    wall: float
    error: NodeFailure | None = None
    executed: list[str] = field(default_factory=list)
    display: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    node_seconds: dict[str, float] = field(default_factory=dict)
    progress: list[Progress] = field(default_factory=list)
    previews: list[tuple[str, bytes]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def check(self) -> "Result":
        """Itself after a success; raises RuntimeError with the node's error otherwise."""
        if self.status == "success":
            return self
        if self.error is None:
            raise RuntimeError(f"the run ended with status {self.status}")
        failure = self.error
        raise RuntimeError(
            f"node {failure.node_id} ({failure.node_type}): {failure.message}\n{failure.traceback}"
        )

    def images(self, node: str | None = None) -> list[dict[str, str]]:
        """The images that a node (or all of them) saved, as ``Client.view`` takes them.

        Pictures that a node only shows (``"type": "temp"``) are in ``outputs`` alone.
        """
        outputs = self.outputs if node is None else {node: self.outputs.get(node, {})}
        images = [image for output in outputs.values() for image in output.get("images", [])]
        return [image for image in images if image["type"] == "output"]


class Recorder:
    """Turns a stream of events into a Result."""

    def __init__(self, prompt_id: str) -> None:
        self._result = Result(prompt_id, "running", 0.0)
        self._began = time.monotonic()
        self._running: tuple[str, str, float] | None = None

    @property
    def done(self) -> bool:
        return self._result.status != "running"

    @property
    def current(self) -> str | None:
        return self._running[0] if self._running else None

    def event(self, kind: str, data: dict[str, Any], moment: float) -> None:
        """Take one JSON event; those of other prompts are ignored."""
        if data.get("prompt_id") != self._result.prompt_id:
            return
        result = self._result
        if kind == "executing":
            self._close(moment)
            if data.get("node") is not None:
                self._open(str(data["node"]), str(data.get("display_node", data["node"])), moment)
        elif kind == "execution_cached":
            result.cached += [str(node) for node in data.get("nodes", [])]
        elif kind == "progress_state":
            self._progress(data.get("nodes", {}))
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            self._close(moment)
            result.status = kind.removeprefix("execution_")
            result.wall = moment - self._began
            if kind == "execution_error":
                result.error = NodeFailure(
                    node_id=str(data.get("node_id")),
                    node_type=str(data.get("node_type")),
                    message=str(data.get("exception_message", "")).strip(),
                    exception_type=str(data.get("exception_type")),
                    traceback="".join(data.get("traceback") or []),
                )

    def binary(self, frame: bytes) -> None:
        """Take one binary frame: a preview image or a node's progress text."""
        (kind,) = struct.unpack_from(">I", frame)
        if kind == PREVIEW:
            self._result.previews.append((self.current or "", frame[8:]))
        elif kind in (TEXT, PREVIEW_WITH_METADATA):
            (length,) = struct.unpack_from(">I", frame, 4)
            head, body = frame[8 : 8 + length], frame[8 + length :]
            if kind == TEXT:
                self._result.texts.append((head.decode(), body.decode()))
            else:
                self._result.previews.append((str(json.loads(head).get("display_node_id")), body))

    def result(self, outputs: dict[str, Any]) -> Result:
        self._result.outputs = outputs
        return self._result

    def _open(self, node: str, display: str, moment: float) -> None:
        self._running = (node, display, moment)
        self._result.executed.append(node)
        self._result.display.append(display)

    def _close(self, moment: float) -> None:
        if self._running is None:
            return
        node, display, began = self._running
        for seconds, key in ((self._result.seconds, node), (self._result.node_seconds, display)):
            seconds[key] = seconds.get(key, 0.0) + moment - began
        self._running = None

    def _progress(self, nodes: dict[str, Any]) -> None:
        for node, state in nodes.items():
            step = Progress(
                node=str(node),
                display=str(state.get("display_node_id", node)),
                value=float(state["value"]),
                maximum=float(state["max"]),
            )
            if state.get("state") == "running" and step not in self._result.progress:
                self._result.progress.append(step)
