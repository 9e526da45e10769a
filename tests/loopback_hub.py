"""A loopback Hugging Face hub: model listings, gated repositories, and files behind a CDN.

The statuses, headers and JSON are those of the hub's API as huggingface_hub reads them
(``HfApi.model_info``, ``hf_raise_for_status``).
"""

import hashlib
import json
from dataclasses import dataclass, field
from urllib.parse import unquote

from loopback import Exchange, Server, ranged


@dataclass
class Repo:
    """commits: commit -> {path: content}. branches: name -> commit.

    access: "public", "gated" (a licence to accept) or "private".
    """

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str] = field(default_factory=dict)
    access: str = "public"


class Hub:
    """Knows the tokens ``good`` (may read all) and ``other`` (valid, may read nothing)."""

    def __init__(self, server: Server, cdn: Server) -> None:
        self.server = server
        self.cdn = cdn
        self.repos: dict[str, Repo] = {}
        server.routes["*"] = self._answer
        cdn.routes["*"] = self._deliver
        self._blobs: dict[str, bytes] = {}

    @property
    def endpoint(self) -> str:
        return self.server.origin

    def add(self, name: str, files: dict[str, bytes], access: str = "public") -> Repo:
        commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        repo = Repo({commit: files}, {"main": commit}, access)
        self.repos[name] = repo
        return repo

    def push(self, name: str, files: dict[str, bytes]) -> str:
        """A new commit on main."""
        repo = self.repos[name]
        commit = hashlib.sha1(repo.branches["main"].encode(), usedforsecurity=False).hexdigest()
        repo.commits[commit] = files
        repo.branches["main"] = commit
        return commit

    def asked(self) -> list[str]:
        return [seen.path for seen in self.server.requests + self.cdn.requests]

    def forget(self) -> None:
        self.server.requests.clear()
        self.cdn.requests.clear()

    def _answer(self, exchange: Exchange) -> None:
        path = unquote(exchange.seen.path)
        token = exchange.seen.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in ("good", "other"):
            self._refuse(exchange, 401, "", "Invalid credentials in Authorization header")
            return
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._list(exchange, name, revision or "main", token)
            return
        owner, repo, kind, revision, *file = path.strip("/").split("/")
        assert kind == "resolve"
        self._resolve(exchange, f"{owner}/{repo}", revision, "/".join(file), token)

    def _visible(self, exchange: Exchange, name: str, token: str) -> Repo | None:
        """A repository; None, and the refusal is sent, where it is not for this token."""
        repo = self.repos.get(name)
        if repo is None or (repo.access == "private" and token != "good"):
            status = 404 if token else 401
            self._refuse(exchange, status, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _list(self, exchange: Exchange, name: str, revision: str, token: str) -> None:
        if (repo := self._visible(exchange, name, token)) is None:
            return
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self._refuse(exchange, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        siblings = []
        for path, content in repo.commits[commit].items():
            entry: dict[str, object] = {"rfilename": path}
            if exchange.seen.query == "blobs=true":
                entry["size"] = len(content)
                entry["blobId"] = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                if path.endswith(".safetensors"):
                    sha256 = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        answer = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "private": repo.access == "private",
            "gated": "auto" if repo.access == "gated" else False,
            "siblings": siblings,
        }
        exchange.answer(200, json.dumps(answer).encode(), Content_Type="application/json")

    def _resolve(self, exchange: Exchange, name: str, revision: str, file: str, token: str) -> None:
        if (repo := self._visible(exchange, name, token)) is None:
            return
        if repo.access == "gated" and token != "good":
            said = "You are not in the authorized list" if token else "Please log in."
            self._refuse(exchange, 403 if token else 401, "GatedRepo", said)
            return
        commit = repo.branches.get(revision, revision)
        content = repo.commits[commit].get(file)
        if content is None:
            self._refuse(exchange, 404, "EntryNotFound", "Entry not found")
            return
        sha256 = hashlib.sha256(content).hexdigest()
        if not file.endswith(".safetensors"):
            exchange.answer(200, content, X_Repo_Commit=commit, ETag=f'"{sha256[:40]}"')
            return
        self._blobs[sha256] = content
        exchange.answer(
            302,
            b"Found",
            Location=f"{self.cdn.origin}/blobs/{sha256}?X-Amz-Signature=SIGNED",
            X_Repo_Commit=commit,
            X_Linked_Etag=f'"{sha256}"',
            X_Linked_Size=len(content),
        )

    def _deliver(self, exchange: Exchange) -> None:
        if "authorization" in exchange.seen.headers:
            exchange.answer(400, b"Only one auth mechanism allowed")  # as presigned storage does
            return
        sha256 = exchange.seen.path.rpartition("/")[2]
        ranged(self._blobs[sha256], etag=f'"{sha256}"')(exchange)

    @staticmethod
    def _refuse(exchange: Exchange, status: int, code: str, message: str) -> None:
        named = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        exchange.answer(status, body, **named, **{"X-Error-Message": message})
