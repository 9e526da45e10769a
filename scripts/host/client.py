"""Drives a ComfyUI server the way its page does: queue a prompt, follow its events, fetch images.

One thread reads the websocket into a queue; everything else is plain, synchronous calls.
"""

import asyncio
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import requests

from .events import Recorder, Result

Prompt = dict[str, dict[str, Any]]

# Both bound what hangs, and say nothing of how fast a machine is.
RUN_TIMEOUT = 300.0
END_TIMEOUT = 120.0


class PromptRefused(RuntimeError):
    """POST /prompt answered 400: the graph did not validate, and nothing ran.

    ``node_errors`` maps a node id to ``{"errors": [...], "class_type": ...}`` as the host gives it.
    """

    def __init__(self, reply: dict[str, Any]) -> None:
        self.error: dict[str, Any] = reply.get("error") or {}
        self.node_errors: dict[str, Any] = reply.get("node_errors") or {}
        lines = [str(self.error.get("message", "")), *self.details()]
        super().__init__("\n".join(lines))

    def details(self, node: str | None = None) -> list[str]:
        """ "message: details" of each error, of one node or of all."""
        nodes = self.node_errors if node is None else {node: self.node_errors[node]}
        return [
            f"{error['message']}: {error['details']}"
            for report in nodes.values()
            for error in report["errors"]
        ]


@dataclass
class Client:
    """One page: its own client id, its own websocket. Close it, or use it as a context manager."""

    url: str
    client_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.http = requests.Session()
        self.http.trust_env = False
        self._unfinished: set[str] = set()
        self._events: queue.Queue[Any] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        if not self._ready.wait(END_TIMEOUT):
            raise TimeoutError(f"the server's websocket did not open within {END_TIMEOUT:.0f} s")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, and take along what is still queued or running of ours."""
        with suppress(requests.ConnectionError):  # a server that died has nothing to stop
            self._withdraw()
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        self.http.close()

    def queue(self, prompt: Prompt, extra_data: dict[str, Any] | None = None) -> str:
        """Queue a graph in API format; returns its prompt id. Raises PromptRefused."""
        body = {"prompt": prompt, "client_id": self.client_id, "extra_data": extra_data or {}}
        reply = self.http.post(f"{self.url}/prompt", json=body, timeout=60)
        if reply.status_code == 400:
            raise PromptRefused(reply.json())
        reply.raise_for_status()
        prompt_id = str(reply.json()["prompt_id"])
        self._unfinished.add(prompt_id)
        return prompt_id

    def run(
        self,
        prompt: Prompt,
        timeout: float = RUN_TIMEOUT,
        *,
        extra_data: dict[str, Any] | None = None,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> Result:
        """Queue a graph and follow it to its end.

        ``on_event(type, data)`` sees each event as it comes, to act in the middle of a run.
        Raises PromptRefused, or TimeoutError after asking the server to stop.
        """
        return self.wait(self.queue(prompt, extra_data), timeout, on_event=on_event)

    def wait(
        self,
        prompt_id: str,
        timeout: float = RUN_TIMEOUT,
        *,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> Result:
        """Follow a queued prompt to its end; wait for several in the order of their queueing."""
        recorder = Recorder(prompt_id)
        deadline = time.monotonic() + timeout
        while not recorder.done:
            try:
                moment, message = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.interrupt()
                raise TimeoutError(
                    f"prompt {prompt_id} did not end within {timeout:.0f} s; "
                    f"it was at node {recorder.current}"
                ) from None
            if isinstance(message, BaseException):
                raise ConnectionError("the server closed the websocket") from message
            if isinstance(message, bytes):
                recorder.binary(message)
                continue
            kind, data = message["type"], message.get("data") or {}
            recorder.event(kind, data, moment)
            if on_event:
                on_event(kind, data)
        self._unfinished.discard(prompt_id)
        return recorder.result(self._outputs(prompt_id))

    def interrupt(self, prompt_id: str = "") -> None:
        """Stop what runs now, or nothing unless it is this prompt."""
        body = {"prompt_id": prompt_id} if prompt_id else {}
        self.http.post(f"{self.url}/interrupt", json=body, timeout=60).raise_for_status()

    def get(self, path: str) -> Any:
        """GET a JSON document of the server."""
        reply = self.http.get(self.url + path, timeout=60)
        reply.raise_for_status()
        return reply.json()

    def object_info(self, node: str) -> dict[str, Any]:
        """The schema of one node. Raises KeyError when the server does not know it."""
        return dict(self.get(f"/object_info/{node}")[node])

    def view(self, image: dict[str, str]) -> bytes:
        """The bytes of an image named in a result's outputs."""
        keys = ("filename", "subfolder", "type")
        parameters = {key: image[key] for key in keys if key in image}
        reply = self.http.get(f"{self.url}/view", params=parameters, timeout=60)
        reply.raise_for_status()
        return reply.content

    def upload_image(self, name: str, content: bytes) -> str:
        """Put an image into the input folder; returns the name to give ``LoadImage``."""
        files = {"image": (name, content, "application/octet-stream")}
        reply = self.http.post(
            f"{self.url}/upload/image", files=files, data={"overwrite": "true"}, timeout=60
        )
        reply.raise_for_status()
        return str(reply.json()["name"])

    def forget(self) -> None:
        """Empty the server's caches and unload its models: the next run starts cold."""
        body = {"unload_models": True, "free_memory": True}
        self.http.post(f"{self.url}/free", json=body, timeout=60).raise_for_status()
        # The server does it between two prompts, and might take the next one first.
        number = {"class_type": "PrimitiveInt", "inputs": {"value": 1}}
        shown = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
        self.run({"1": number, "2": shown}).check()

    def _withdraw(self) -> None:
        if not self._unfinished:
            return
        body = {"delete": sorted(self._unfinished)}
        self.http.post(f"{self.url}/queue", json=body, timeout=60).raise_for_status()
        deadline = time.monotonic() + END_TIMEOUT
        # Again and again: a prompt that begins forgets that it was interrupted a moment before.
        while time.monotonic() < deadline:
            running = {item[1] for item in self.get("/queue")["queue_running"]}
            if not running & self._unfinished:
                return
            for prompt_id in running & self._unfinished:
                self.interrupt(prompt_id)
            time.sleep(0.02)

    def _outputs(self, prompt_id: str) -> dict[str, Any]:
        # The last event is sent a moment before the history is written.
        deadline = time.monotonic() + END_TIMEOUT
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return dict(history[prompt_id]["outputs"])
            time.sleep(0.02)
        raise TimeoutError(f"prompt {prompt_id} ended, but its history was not written")

    def _listen(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._read())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._events.put((time.monotonic(), error))
        finally:
            self._loop.close()

    async def _read(self) -> None:
        address = f"{self.url}/ws?clientId={self.client_id}"
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(address, max_msg_size=0) as socket:
                # Asks for previews that name their node.
                flags = {"supports_preview_metadata": True}
                await socket.send_json({"type": "feature_flags", "data": flags})
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        payload: Any = json.loads(message.data)
                        self._ready.set()
                    elif message.type == aiohttp.WSMsgType.BINARY:
                        payload = message.data
                    else:
                        break
                    self._events.put((time.monotonic(), payload))
        raise ConnectionError("websocket closed")
