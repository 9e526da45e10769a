"""Words on the face of a node, by the host's own text channel."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io
from server import PromptServer

# For the schema of a node with words: a page that was reloaded has lost them, and when the node is
# cached the host sends them again only to those who ask for it (from 0.20 on).
SAID_AGAIN: dict[str, Any] = (
    {"has_intermediate_output": True}
    if "has_intermediate_output" in {field.name for field in fields(io.Schema)}
    else {}
)


def show_text(text: str, node_id: str) -> None:
    """Show ``text`` under node ``node_id`` in the page that queued this run.

    Nothing happens where no page is listening: headless runs read the node's ``ui`` instead.
    """
    server = PromptServer.instance
    if server.client_id is not None:
        server.send_progress_text(text, node_id, server.client_id)
