"""A table of edits through ComfyUI-Distributed, which spreads them itself: GRAPH TABLE OUT MASTER.

The master's panel names the other servers; the graph has a DistributedCollector that balances.
"""

import csv
import json
import sys
import time
from pathlib import Path

import requests

graph = json.loads(Path(sys.argv[1]).read_text("utf-8"))
out, server = Path(sys.argv[3]), sys.argv[4]
out.mkdir(exist_ok=True)
workers = requests.get(f"{server}/distributed/config", timeout=60).json()["workers"]
asked = {"client_id": "table", "enabled_worker_ids": [worker["id"] for worker in workers]}
jobs = {}
with open(sys.argv[2], newline="", encoding="utf-8") as table:
    for row in csv.DictReader(table):
        graph["5"]["inputs"]["text"] = row["prompt"]
        graph["12"]["inputs"]["noise_seed"] = int(row["seed"])
        graph["4"]["inputs"]["strength_model"] = float(row["scale"])
        body = {**asked, "prompt": graph}
        reply = requests.post(f"{server}/distributed/queue", json=body, timeout=60)
        reply.raise_for_status()
        jobs[reply.json()["prompt_id"]] = row["id"]
for job, name in jobs.items():
    while job not in (past := requests.get(f"{server}/history/{job}", timeout=60).json()):
        time.sleep(0.1)
    for n, image in enumerate(past[job]["outputs"]["18"]["images"]):
        picture = requests.get(f"{server}/view", params=image, timeout=60)
        (out / f"{name}_{n}.png").write_bytes(picture.content)
