"""The stand-in as a command; ``./scripts/standin --help``."""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from .server import Standin
from .state import Timing


def main(faults: Mapping[str, Any] | None = None) -> None:
    """Serve until Ctrl-C; ``faults`` by name are what ``--fault`` and ``--list`` offer."""
    parser = argparse.ArgumentParser(
        prog="./scripts/standin",
        description="A free stand-in for RunComfy's API on this machine: try the node, or see how "
        "it takes a fault. Start ComfyUI with the two variables that it prints.",
    )
    parser.add_argument("--port", type=int, default=8199, help="port on 127.0.0.1 (8199)")
    parser.add_argument("--queue", type=float, default=2.0, help="seconds a job waits (2)")
    parser.add_argument("--run", type=float, default=4.0, help="seconds a job runs (4)")
    if faults:
        parser.add_argument("--fault", choices=sorted(faults), metavar="NAME", help="see --list")
        parser.add_argument("--list", action="store_true", help="list the faults and end")
    arguments = parser.parse_args()
    if faults and arguments.list:
        for fault in faults.values():
            print(f"{fault.name:34} at {fault.at:7} a careful client: {fault.expect}")
        return
    timing = Timing(arguments.queue, arguments.run)
    with Standin(arguments.port, timing, faults=faults) as standin:
        standin.state.default_fault = getattr(arguments, "fault", None) or ""
        print(f"export RUNCOMFY_API_BASE={standin.origin}")
        print("export RUNCOMFY_API_TOKEN=standin-token-0000", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
