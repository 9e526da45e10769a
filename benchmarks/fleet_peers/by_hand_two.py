"""The same over several servers, a row to whichever is free: GRAPH TABLE OUT SERVER..."""

import copy
import csv
import json
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

stock = json.loads(Path(sys.argv[1]).read_text("utf-8"))
out, servers = Path(sys.argv[3]), sys.argv[4:]
out.mkdir(exist_ok=True)
free: queue.Queue[str] = queue.Queue()


def run(row: dict[str, str]) -> None:
    graph = copy.deepcopy(stock)
    graph["5"]["inputs"]["text"] = row["prompt"]
    graph["12"]["inputs"]["noise_seed"] = int(row["seed"])
    graph["4"]["inputs"]["strength_model"] = float(row["scale"])
    server = free.get()
    try:
        reply = requests.post(f"{server}/prompt", json={"prompt": graph}, timeout=60)
        reply.raise_for_status()
        job = reply.json()["prompt_id"]
        while job not in (past := requests.get(f"{server}/history/{job}", timeout=60).json()):
            time.sleep(0.1)
        for n, image in enumerate(past[job]["outputs"]["18"]["images"]):
            picture = requests.get(f"{server}/view", params=image, timeout=60)
            (out / f"{row['id']}_{n}.png").write_bytes(picture.content)
    finally:
        free.put(server)


for server in servers:
    free.put(server)
with open(sys.argv[2], newline="", encoding="utf-8") as table, ThreadPoolExecutor() as pool:
    list(pool.map(run, csv.DictReader(table)))
