"""By hand with all the wishes: GRAPH TABLE OUT SERVER...

Bad values are said before the first picture, a server that dies is left out and its row goes to
another, and the same command again makes what is missing. Rows that fail are named at the end.
"""

import copy
import csv
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path

import requests

COLUMNS = {
    "prompt": ("5", "text", str),
    "seed": ("12", "noise_seed", int),
    "scale": ("4", "strength_model", float),
}
stock = json.loads(Path(sys.argv[1]).read_text("utf-8"))
out, servers = Path(sys.argv[3]), sys.argv[4:]
failed: list[str] = []


def graph_of(row: dict[str, str]) -> dict:
    graph = copy.deepcopy(stock)
    for column, (node, name, kind) in COLUMNS.items():
        graph[node]["inputs"][name] = kind(row[column])
    return graph


def problems(rows: list[dict[str, str]], info: dict) -> list[str]:
    found = []
    for number, row in enumerate(rows, 1):
        for column, (node, name, kind) in COLUMNS.items():
            bounds = info[stock[node]["class_type"]]["input"]["required"][name][1]
            try:
                value = kind(row[column])
            except ValueError:
                found.append(f"row {number}: {column} is {row[column]!r}")
                continue
            if kind is not str and not bounds["min"] <= value <= bounds["max"]:
                found.append(f"row {number}: {column} {value} is out of range")
    return found


def run(server: str, row: dict[str, str]) -> None:
    reply = requests.post(f"{server}/prompt", json={"prompt": graph_of(row)}, timeout=60)
    reply.raise_for_status()
    job = reply.json()["prompt_id"]
    while job not in (past := requests.get(f"{server}/history/{job}", timeout=60).json()):
        time.sleep(0.1)
    images = past[job]["outputs"]["18"]["images"]
    for n, image in reversed(list(enumerate(images))):  # the first comes last: then all are there
        picture = requests.get(f"{server}/view", params=image, timeout=60)
        partial = out / f".{row['id']}_{n}.part"
        partial.write_bytes(picture.content)
        os.replace(partial, out / f"{row['id']}_{n}.png")


def work(server: str) -> None:
    while True:
        try:
            row = todo.get(timeout=1)
        except queue.Empty:
            if not busy:
                return
            continue
        busy.add(row["id"])
        try:
            run(server, row)
        except requests.ConnectionError:
            todo.put(row)
            return
        except (requests.RequestException, KeyError) as error:
            failed.append(f"{row['id']}: {error!r}")
        finally:
            busy.discard(row["id"])


with open(sys.argv[2], newline="", encoding="utf-8") as table:
    rows = list(csv.DictReader(table))
if wrong := problems(rows, requests.get(f"{servers[0]}/object_info", timeout=60).json()):
    sys.exit("\n".join(wrong))
out.mkdir(exist_ok=True)
todo: queue.Queue[dict[str, str]] = queue.Queue()
busy: set[str] = set()
for row in rows:
    if not (out / f"{row['id']}_0.png").exists():
        todo.put(row)
threads = [threading.Thread(target=work, args=(server,)) for server in servers]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if failed or not todo.empty():
    sys.exit("\n".join([*failed, f"{todo.qsize()} rows not run"]))
