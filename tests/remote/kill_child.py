"""Runs jobs in forked children, to be killed from outside: one child a line on standard input.

Arguments: the stand-in's origin, the journal's folder. A line is ``token seed``; the answer is the
child's process id. Importing takes longer than a job, so it is done once, here.
"""

import asyncio
import os
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(origin: str, folder: str) -> None:
    package = types.ModuleType("flux2_lora_edit")
    package.__path__ = [str(HERE.parents[1])]  # type: ignore[attr-defined]
    sys.modules["flux2_lora_edit"] = package
    sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]
    from remote_support import context_at, payload, whole_job

    server = types.SimpleNamespace(origin=origin)
    for line in sys.stdin:
        token, seed = line.split()
        child = os.fork()
        if child == 0:
            context = context_at(server, Path(folder), token, session=f"child-{os.getpid()}")
            asyncio.run(whole_job(context, payload(int(seed))))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)
        sys.stdout.write("ended\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
