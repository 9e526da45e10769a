"""A table of edits with comfy-api-simplified: GRAPH TABLE OUT SERVER."""

import csv
import sys
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

graph, api = ComfyWorkflowWrapper(sys.argv[1]), ComfyApiWrapper(sys.argv[4])
out = Path(sys.argv[3])
out.mkdir(exist_ok=True)
with open(sys.argv[2], newline="", encoding="utf-8") as table:
    for row in csv.DictReader(table):
        graph.set_node_param("Prompt", "text", row["prompt"])
        graph.set_node_param("Noise", "noise_seed", int(row["seed"]))
        graph.set_node_param("LoRA", "strength_model", float(row["scale"]))
        for n, picture in enumerate(api.queue_and_wait_images(graph, "Save Image").values()):
            (out / f"{row['id']}_{n}.png").write_bytes(picture)
