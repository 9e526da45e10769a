"""Runs the peers' scripts on real ComfyUI servers with tiny models, and tells what happened.

    python benchmarks/fleet_peers/observe.py --python PYTHON [--distributed FOLDER] [PEER ...]
    python benchmarks/fleet_peers/observe.py --lines

PYTHON: an environment with comfy-api-simplified, comfy-sdk, comfy-api-proxy and requests. FOLDER: a
checkout of ComfyUI-Distributed. Per peer: 12 rows on one server; a bad scale in row 9; 12 rows on
two servers; 36 rows on two servers, one of them killed after 6 pictures; the same command again.
Whatever takes longer than ``PATIENCE`` seconds has hung. ``--lines`` counts each script's lines of
code: no blank ones, comments or docstrings.
"""

import argparse
import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from host import environment, models, server, stock  # noqa: E402
from host.cache import cache_root  # noqa: E402

PATIENCE = 240
ROWS, MANY, BEFORE_THE_KILL, BAD = 12, 36, 6, 9
TITLES = {"5": "Prompt", "12": "Noise", "4": "LoRA", "18": "Save Image"}
PEERS = ("by_hand", "by_hand_all", "simplified", "sdk", "distributed", "fleet")
# The script for one server and the one for several.
SCRIPTS = {peer: (peer, f"{peer}_two") for peer in PEERS}
SCRIPTS |= {"by_hand_all": ("by_hand_all",) * 2, "distributed": ("distributed_two",) * 2}


class Bed:
    """Two servers, what stands before them, and the graph and tables."""

    def __init__(self, scratch: Path, python: str, distributed: Path | None) -> None:
        self.scratch, self.python, self.distributed = scratch, python, distributed
        self.host = environment.prepare()
        self.servers: list[server.Server] = []
        self.proxies: list[subprocess.Popen[bytes]] = []
        self.addresses: list[str] = []

    def base(self, number: int) -> Path:
        base = self.scratch / f"base{number}"
        if not base.exists():
            models.make_base(base, models.every_dir(cache_root()))
            if self.distributed:
                target = base / "custom_nodes" / "ComfyUI-Distributed"
                shutil.copytree(self.distributed, target)
        return base

    def start(self, number: int) -> server.Server:
        base = self.base(number)
        # As ComfyUI starts by itself: with previews comfy-api-simplified takes those for pictures.
        arguments = ["--preview-method", "none"]
        python = str(self.host.python)
        return server.start(self.host.comfyui, base, python=python, arguments=arguments)

    def start_both(self, peer: str) -> list[str]:
        """Two servers and what the peer wants before them; the addresses to give it."""
        self.servers = [self.start(0), self.start(1)]
        if peer == "distributed":
            self.configure()
        urls = [one.url for one in self.servers]
        return [self.proxy(url) for url in urls] if peer == "sdk" else urls

    def configure(self) -> None:
        """What the panel of ComfyUI-Distributed writes down: the second server is a worker."""
        host, port = "127.0.0.1", int(self.servers[1].url.rsplit(":", 1)[1])
        worker = {"id": "1", "name": "two", "host": host, "port": port, "enabled": True}
        worker["type"] = "remote"
        config = {"master": {"host": host}, "workers": [worker], "settings": {"debug": True}}
        target = self.scratch / "base0/custom_nodes/ComfyUI-Distributed/gpu_config.json"
        target.write_text(json.dumps(config), "utf-8")

    def proxy(self, address: str) -> str:
        port = server.free_port()
        command = [str(Path(self.python).with_name("comfy-api-proxy")), "run"]
        command += ["--comfyui", address, "--port", str(port)]
        log = (self.scratch / f"proxy{port}.log").open("wb")
        self.proxies.append(subprocess.Popen(command, stdout=log, stderr=log))
        time.sleep(3)
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        for proxy in self.proxies:
            proxy.terminate()
            proxy.wait(10)
        for one in self.servers:
            one.stop()


class Seen(NamedTuple):
    """A script's end, its pictures, and the last thing it said."""

    status: str
    seconds: float
    pictures: int
    said: str


def write_table(path: Path, rows: int, bad: int = 0) -> Path:
    lines = ["id,prompt,seed,scale"]
    if path.name.startswith("fleet"):
        lines = ["id,Prompt.text,Noise.noise_seed,LoRA.strength_model"]
    for n in range(1, rows + 1):
        scale = "200" if n == bad else f"{n / rows:.3f}"
        lines.append(f"row{n:02},a bicycle number {n},{n},{scale}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def write_graph(path: Path, collector: bool) -> Path:
    graph = stock.edit(images=["astronaut.png"], loras=[("ai-toolkit.safetensors", 1.0)]).prompt
    for key, node in graph.items():
        node["_meta"] = {"title": TITLES.get(key, node["class_type"])}
    if collector:
        inputs = {"images": ["17", 0], "load_balance": True}
        graph["19"] = {"class_type": "DistributedCollector", "inputs": inputs}
        graph["18"]["inputs"]["images"] = ["19", 0]
    path.write_text(json.dumps(graph), "utf-8")
    return path


def command_of(bed: Bed, peer: str, table: Path, out: Path, addresses: list[str]) -> list[str]:
    """The peer's script for so many servers, or ours, which starts them itself."""
    graph = str(write_graph(bed.scratch / "graph.json", peer == "distributed"))
    if peer == "fleet":
        command = [sys.executable, str(ROOT / "scripts/fleet"), "run", graph, "--table", str(table)]
        command += ["--out", str(out), "--servers", str(len(addresses)), "--cpu"]
        return [*command, "--base", str(bed.base(0))]
    script = SCRIPTS[peer][len(addresses) > 1]
    given = addresses[:1] if peer == "distributed" else addresses
    return [bed.python, str(HERE / f"{script}.py"), graph, str(table), str(out), *given]


def run(bed: Bed, command: list[str], out: Path, victim: Callable[[], int] | None = None) -> Seen:
    """One run; ``victim`` names the process to kill after some pictures."""
    began = time.monotonic()
    old = set(out.glob("*.png"))
    log = bed.scratch / "script.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
        status = "hung"
        while time.monotonic() - began < PATIENCE:
            if victim and len(set(out.glob("*.png")) - old) >= BEFORE_THE_KILL:
                os.kill(victim(), signal.SIGKILL)
                victim = None
            if process.poll() is not None:
                status = f"exit {process.returncode}"
                break
            time.sleep(0.02)
        else:
            process.terminate()
            process.wait(60)
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    said = " / ".join(lines[-3:])[-500:]
    return Seen(status, round(time.monotonic() - began, 1), len(list(out.glob("*.png"))), said)


def server_of(base: Path) -> int:
    """The process id of one of the fleet's servers: its base directory is nobody else's."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if "main.py" in words and str(base) in words:
            return int(folder.name)
    raise RuntimeError("no server of the fleet runs")


def observe(bed: Bed, peer: str) -> None:
    def say(case: str, seen: Seen) -> None:
        print(f"{peer:12} {case:28} {seen}", flush=True)

    out, kind = bed.scratch / peer, "fleet-" if peer == "fleet" else ""
    addresses = ["one", "two"] if peer == "fleet" else bed.start_both(peer)

    def case(name: str, rows: int, count: int = 1, bad: int = 0, victim=None) -> Seen:
        table = write_table(bed.scratch / f"{kind}{name}.csv", rows, bad)
        command = command_of(bed, peer, table, out / name, addresses[:count])
        return run(bed, command, out / name, victim)

    def victim() -> int:
        return server_of(bed.base(0)) if peer == "fleet" else bed.servers[1].process.pid

    if peer != "fleet":
        case("warm", 2, 2)
    say("one server", case("one", ROWS))
    say(f"bad row {BAD}", case("bad", ROWS, bad=BAD))
    say("two servers", case("two", ROWS, 2))
    say("one of two killed", case("killed", MANY, 2, victim=victim))
    before = {path: path.stat().st_mtime_ns for path in (out / "killed").glob("*.png")}
    say("again, the server still dead", case("killed", MANY, 2))
    again = [path for path, moment in before.items() if path.stat().st_mtime_ns != moment]
    print(f"{peer:12} {'':28} {len(again)} of {len(before)} pictures made again", flush=True)


def lines_of_code(path: Path) -> int:
    """Without blank lines, comments and docstrings."""
    source = path.read_text("utf-8")
    words: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            node
        ):
            words |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    numbered = enumerate(source.splitlines(), 1)
    code = [line.strip() for number, line in numbered if number not in words]
    return sum(bool(line) and not line.startswith("#") for line in code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python")
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--distributed", type=Path)
    parser.add_argument("peers", nargs="*", default=PEERS)
    options = parser.parse_args()
    if options.lines:
        for path in sorted(set(HERE.glob("*.py")) - {Path(__file__)}):
            print(f"{path.stem:16} {lines_of_code(path)}")
        return
    for peer in options.peers:
        folder = options.distributed if peer == "distributed" else None
        with tempfile.TemporaryDirectory(prefix="fleet-peers-") as scratch:
            for name in ("one", "two", "bad", "killed", "warm"):
                (Path(scratch) / peer / name).mkdir(parents=True)
            bed = Bed(Path(scratch), options.python, folder)
            try:
                observe(bed, peer)
            finally:
                bed.stop()


if __name__ == "__main__":
    main()
