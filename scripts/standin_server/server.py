"""The server: two models, requests, media, the catalogue; one thread a connection."""

import json
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

from .exchange import Exchange, Fault
from .pictures import draw
from .state import PRICE_USD, Account, Job, State, Timing
from .validation import faults_of, load_models

MAX_BODY = 80 * 1024 * 1024


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error here; it is what many tests do."""


class _Elsewhere(BaseHTTPRequestHandler):
    """Another origin, which must never be sent a token or a request."""

    state: State

    def _seen(self) -> None:
        secret = "token" if self.headers.get("Authorization") else "request"
        self.state.leak(f"{secret} sent to another origin: {self.command} {self.path}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_HEAD = do_PUT = _seen

    def log_message(self, *args: Any) -> None:
        return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    standin: "Standin"

    def log_message(self, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self.standin.handle(self, None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            return
        self.standin.handle(self, self.rfile.read(length))


class Standin:
    """The stand-in, listening from construction on; a context manager that ends it.

    ``picture_side`` draws every picture at that many pixels a side instead of the size asked for.
    ``faults`` by name: an account's strikes it where ``state.account`` was told that name.
    """

    def __init__(
        self,
        port: int = 0,
        timing: Timing | None = None,
        picture_side: int = 0,
        host: str = "127.0.0.1",
        faults: Mapping[str, Fault] | None = None,
    ) -> None:
        self.faults = faults or {}
        self.state = State(timing or Timing())
        self.models = load_models()
        self.picture_side = picture_side
        self._stopping = threading.Event()
        handler = type("Handler", (_Handler,), {"standin": self})
        self._server = _Quiet((host, port), handler)
        other = type("Elsewhere", (_Elsewhere,), {"state": self.state})
        self._other = _Quiet((host, 0), other)
        self.origin = f"http://{host}:{self._server.server_address[1]}"
        self.elsewhere = f"http://{host}:{self._other.server_address[1]}"
        for server in (self._server, self._other):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> "Standin":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._stopping.set()
        for server in (self._server, self._other):
            server.shutdown()
            server.server_close()

    def handle(self, handler: _Handler, data: bytes | None) -> None:
        """One exchange: the healthy answer, or what the account's fault makes of it."""
        path = handler.path.partition("?")[0]
        if path.startswith("/media/"):
            return self._media(handler, path)
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token or token.startswith("invalid"):
            return self._plain(handler, 401, {"error_code": 400004, "message": "Invalid token"})
        account = self.state.account(token)
        time.sleep(account.timing.answer_s)
        parts = path.strip("/").split("/")
        if parts[:2] == ["v1", "models"] and "/".join(parts[2:]) in self.models:
            model = "/".join(parts[2:])
            if data is None:
                return self._plain(handler, 200, self._catalogue(model))
            return self._submit(handler, account, model, data)
        if parts[:2] == ["v1", "requests"] and len(parts) == 4:
            return self._request(handler, account, unquote(parts[2]), parts[3])
        self._plain(handler, 404, {"error_code": 404001, "message": "Not found"})

    def _plain(self, handler: _Handler, status: int, body: Any) -> None:
        self._exchange(handler, Account(Timing()), None, status, body).json(status, body)

    def _exchange(
        self, handler: _Handler, account: Account, job: Job | None, status: int, body: Any
    ) -> Exchange:
        stopping = self._stopping.is_set
        return Exchange(handler, account, job, status, body, self.elsewhere, stopping)

    def _strike(self, at: str, exchange: Exchange) -> bool:
        """Let the account's fault act on this exchange, if it is one for it."""
        fault = self.faults.get(exchange.account.fault)
        if fault is None or fault.at != at:
            return False
        if not self.state.strike(exchange.account, fault.times):
            return False
        fault.act(exchange)
        return True

    def _submit(self, handler: _Handler, account: Account, model: str, data: bytes) -> None:
        self.state.count(account, "submit")
        try:
            payload = json.loads(data)
        except ValueError:
            return self._plain(handler, 422, {"error_code": 422001, "detail": "not JSON"})
        fault = self.faults.get(account.fault)
        if detail := faults_of(payload, self.models[model], ()):
            return self._plain(handler, 422, {"error_code": 422001, "detail": detail})
        strikes = fault is not None and fault.at == "submit"
        job = None
        if not strikes or fault.creates or (fault.times and account.struck >= fault.times):
            job = self.state.new_job(account, model, payload)
        base = f"{self.origin}/v1/requests/{job.id if job else 'none'}"
        body = {
            "request_id": job.id if job else "none",
            "status_url": f"{base}/status",
            "result_url": f"{base}/result",
            "cancel_url": f"{base}/cancel",
        }
        exchange = self._exchange(handler, account, job, 200, body)
        exchange.job_payload = payload
        if not self._strike("submit", exchange):
            exchange.json(200, body)

    def _request(self, handler: _Handler, account: Account, job_id: str, what: str) -> None:
        found = self.state.job(job_id, account)
        if found is None or what not in ("status", "result", "cancel"):
            return self._plain(handler, 404, {"error_code": 404001, "message": "Not found"})
        job = found[1]
        if (what == "cancel") != (handler.command == "POST"):
            return self._plain(handler, 405, {"message": "Method not allowed"})
        self.state.count(account, what)
        status, body = 200, {"request_id": job.id, "status": job.status}
        if what == "status" and job.status == "in_queue":
            body["queue_position"] = self.state.position(account, job)
        elif what == "result":
            body |= self._result(job, "include_cost=true" in handler.path)
        elif what == "cancel":
            queued = job.status == "in_queue"
            job.cancelled = job.cancelled or queued
            status = 202
            body = {"request_id": job.id, "status": job.status}
            body["outcome"] = "cancelled" if queued else "not_cancellable"
        exchange = self._exchange(handler, account, job, status, body)
        if not self._strike(what, exchange):
            exchange.json(status, body)

    def _result(self, job: Job, with_cost: bool) -> dict[str, Any]:
        made = datetime.fromtimestamp(job.created_at, timezone.utc)
        more: dict[str, Any] = {"created_at": made.isoformat(), "model_id": job.model}
        if job.status == "completed":
            kind = job.payload.get("output_format", "png")
            # A signature, as real storage has: whatever is shown to anyone must not hold it.
            address = f"{self.origin}/media/{quote(job.id, safe='')}/0.{kind}?X-Signature=topsecret"
            more |= {"status": "succeeded", "output": {"image": address}}
            more["finished_at"] = datetime.now(timezone.utc).isoformat()
            if with_cost:
                more["cost"] = PRICE_USD
        return more

    def _media(self, handler: _Handler, path: str) -> None:
        parts = path.strip("/").split("/")
        found = self.state.job(unquote(parts[1])) if len(parts) == 3 else None
        if handler.headers.get("Authorization"):
            self.state.leak(f"token sent to the storage: {path}")
        if found is None or "X-Signature=topsecret" not in handler.path:
            return self._plain(handler, 404, {"message": "Not found"})
        account, job = found
        self.state.count(account, "media")
        exchange = self._exchange(handler, account, job, 200, self._picture(job))
        if not self._strike("media", exchange):
            kind = job.payload.get("output_format", "png")
            exchange.bytes(200, exchange.body, f"image/{kind}")

    def _picture(self, job: Job) -> bytes:
        properties = self.models[job.model]["properties"]
        payload = {key: value.get("default") for key, value in properties.items()} | job.payload
        width, height = properties["image_size"]["x-pixels"][payload["image_size"]]
        if self.picture_side:
            width, height = self.picture_side, self.picture_side
        seed = payload["seed"] or 0
        return draw(width, height, seed, payload["prompt"], payload["output_format"])

    def _catalogue(self, model: str) -> dict[str, Any]:
        return {
            "model_id": model,
            "base_price_usd": PRICE_USD,
            "price_unit": "image",
            "pricing_note": "The stand-in bills nothing.",
            "input_schema": self.models[model],
        }
