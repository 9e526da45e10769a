"""A table of edits over many ComfyUIs, on Ray.

A room of the repository, not of the pack: it drives ComfyUI from outside as any program could.
It imports nothing of the nodes, and nothing imports it.

A row's way: ``rows.table`` reads it, ``rows.plan.make_plan`` checks it and puts it where models and
LoRAs change seldom, ``drive.run`` gives it to Ray Data, ``worker.Worker`` to a ComfyUI of its own,
``ledger.Ledger`` writes its pictures and ``journal`` that they are there; ``sheet`` shows them.
"""
