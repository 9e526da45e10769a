"""The same over several servers, a row to whichever is free: GRAPH TABLE OUT SERVER..."""

import csv
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

out, servers = Path(sys.argv[3]), sys.argv[4:]
out.mkdir(exist_ok=True)
free: queue.Queue[ComfyApiWrapper] = queue.Queue()


def run(row: dict[str, str]) -> None:
    graph = ComfyWorkflowWrapper(sys.argv[1])
    graph.set_node_param("Prompt", "text", row["prompt"])
    graph.set_node_param("Noise", "noise_seed", int(row["seed"]))
    graph.set_node_param("LoRA", "strength_model", float(row["scale"]))
    api = free.get()
    try:
        for n, picture in enumerate(api.queue_and_wait_images(graph, "Save Image").values()):
            (out / f"{row['id']}_{n}.png").write_bytes(picture)
    finally:
        free.put(api)


for server in servers:
    free.put(ComfyApiWrapper(server))
with open(sys.argv[2], newline="", encoding="utf-8") as table, ThreadPoolExecutor() as pool:
    list(pool.map(run, csv.DictReader(table)))
