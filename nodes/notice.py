"""Words on the face of a node, by the host's own text channel."""

from __future__ import annotations

from server import PromptServer


def show_text(text: str, node_id: str) -> None:
    """Show ``text`` under node ``node_id`` in the page that queued this run.

    Nothing happens where no page is listening: headless runs read the node's ``ui`` instead.
    """
    server = PromptServer.instance
    if server.client_id is not None:
        server.send_progress_text(text, node_id, server.client_id)
