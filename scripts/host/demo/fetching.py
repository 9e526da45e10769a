"""The files of the hub through the pack's own door: resumed, verified, pinned to their commits."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .offer import GB, HubFile
from .pack import room

EVERY_S = 10.0
AGAIN = (
    "Run the same command again: what has come is kept, and it goes on there. Behind a proxy, name "
    "it in FLUX2_LORA_EDIT_PROXY; HF_ENDPOINT names a mirror of the hub."
)


class Progress:
    """Lines on a download, one in ten seconds and one at its end."""

    def __init__(self, file: HubFile) -> None:
        self.file = file
        self.began = self.told = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes are here."""
        now = time.monotonic()
        if self.first is None:
            self.first = done
            if done:
                self._say(f"goes on at {done / GB:.2f} GB")
        if now - self.told >= EVERY_S and done < self.file.size:
            self.told = now
            speed = (done - self.first) / (now - self.began)
            left = (self.file.size - done) / max(speed, 1) / 60
            self._say(
                f"{done / GB:.2f} of {self.file.size / GB:.2f} GB, {speed / 1e6:.1f} MB/s, about "
                f"{left:.0f} min left"
            )

    def _say(self, text: str) -> None:
        print(f"[demo]   {self.file.name}: {text}", flush=True)


def present(file: HubFile, root: Path, access: Any = None) -> Path | None:
    """Where the file lies already; makes no request."""
    sources = room("lora_loader.sources")
    got = sources.find_fetched(_source(file), [root], access=access or sources.Access())
    return got.path if got and got.sha256 == file.sha256 else None


def arrived(file: HubFile, root: Path) -> int:
    """Bytes of the file that an earlier run has brought; 0 where it cannot be told."""
    parts = root.rglob(f"{file.name}.part")
    return max((part.stat().st_size for part in parts), default=0)


def fetch(files: Sequence[HubFile], root: Path, access: Any = None) -> list[Path]:
    """The files on disk, in their order. Raises RuntimeError, in words for a person."""
    return [_fetch(file, root, access) for file in files]


def _fetch(file: HubFile, root: Path, access: Any) -> Path:
    sources, errors = room("lora_loader.sources"), room("network.errors")
    access = access or sources.Access()
    source = _source(file)
    offline = room("lora_loader.sources.hub").Hub.of(source, access).offline
    if offline and not present(file, root, access):
        raise RuntimeError(
            f"{file.name} is not here, and HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set. Unset "
            f"it, or use files of your own with --models DIR.\n{root}"
        )
    # The door's own bound is for LoRAs.
    access = replace(access, client=access.client.within(max_bytes=file.size))
    try:
        got = sources.fetch(
            source,
            [root],
            progress=Progress(file),
            should_stop=lambda: None,
            access=access,
        )
    except errors.NetworkError as error:
        raise RuntimeError(f"{file.name} could not be fetched: {error}\n{AGAIN}") from error
    if got.sha256 != file.sha256:
        got.path.unlink()
        raise RuntimeError(
            f"{file.name} is not the file that this demo was written for (its sha256 differs), and "
            f"was deleted.\n{file.repo} at {file.revision}"
        )
    if got.fetched:
        print(f"[demo]   {file.name}: {got.size / GB:.2f} GB, sha256 as announced", flush=True)
    return Path(got.path)


def _source(file: HubFile) -> Any:
    return room("lora_loader.sources").HubSource(file.repo, file.revision, file.path)
