"""A table of edits over many ComfyUIs, on Ray.

A room of the repository, not of the pack: it drives ComfyUI from outside as any program could.
It imports nothing of the nodes, and nothing imports it.
"""
