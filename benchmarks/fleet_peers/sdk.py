"""A table of edits with comfy-sdk, through comfy-api-proxy: GRAPH TABLE OUT PROXY."""

import csv
import os
import sys
from pathlib import Path

from comfy_sdk import Comfy

os.environ["COMFY_BASE_URL"] = sys.argv[4]
client, out = Comfy(), Path(sys.argv[3])
graph = client.workflows.from_file(sys.argv[1])
out.mkdir(exist_ok=True)
with open(sys.argv[2], newline="", encoding="utf-8") as table:
    for row in csv.DictReader(table):
        graph.set_input("5", "text", row["prompt"])
        graph.set_input("12", "noise_seed", int(row["seed"]))
        graph.set_input("4", "strength_model", float(row["scale"]))
        for n, picture in enumerate(client.run(graph).get_outputs("18")):
            picture.to_file(str(out / f"{row['id']}_{n}.png"))
