"""Where screenshots go: beside the checkout's files, ignored by git."""

from pathlib import Path

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts" / "browser"
