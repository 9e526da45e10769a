"""The same over several servers, a row to whichever is free: GRAPH TABLE OUT PROXY..."""

import csv
import os
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comfy_sdk import Comfy

out = Path(sys.argv[3])
out.mkdir(exist_ok=True)
free: queue.Queue[Comfy] = queue.Queue()


def run(row: dict[str, str]) -> None:
    client = free.get()
    try:
        graph = client.workflows.from_file(sys.argv[1])
        graph.set_input("5", "text", row["prompt"])
        graph.set_input("12", "noise_seed", int(row["seed"]))
        graph.set_input("4", "strength_model", float(row["scale"]))
        for n, picture in enumerate(client.run(graph).get_outputs("18")):
            picture.to_file(str(out / f"{row['id']}_{n}.png"))
    finally:
        free.put(client)


for proxy in sys.argv[4:]:
    os.environ["COMFY_BASE_URL"] = proxy
    free.put(Comfy())
with open(sys.argv[2], newline="", encoding="utf-8") as table, ThreadPoolExecutor() as pool:
    list(pool.map(run, csv.DictReader(table)))
