"""Foreign bytes by the million: ``python tests/fuzz/fuzz.py headers --seed 1 --count 1000000``.

Case n of a seed is always the same (``--only n`` repeats it). Each must end in a result or in a
readable error of ours, within ``CASE_S`` and the process's memory; everything else is a fault, and
is printed with its number. Exit status 1 where there was one.
"""

import argparse
import importlib
import resource
import signal
import sys
import time
import traceback
import types
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CASE_S = 2.0
HANG_S = 20
MEMORY = 2 << 30
"""Bytes that a case may take beyond what the process has at its start."""


class Hang(BaseException):
    """A case that would never end."""


def prepare() -> None:
    """The pack under its test name, and this folder's modules."""
    if "flux2_lora_edit" not in sys.modules:
        package = types.ModuleType("flux2_lora_edit")
        package.__path__ = [str(ROOT)]
        sys.modules["flux2_lora_edit"] = package
    for folder in (ROOT / "scripts", ROOT / "tests", HERE):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def say(*words: object) -> None:
    """A line, at once: a campaign is followed in its file."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def limit_memory() -> None:
    """A case that takes more than MEMORY meets MemoryError, not the machine's end."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def processor_time(module: Any, room: Any, made: Any) -> float:
    """Seconds of a second run: on a busy machine the clock on the wall blames the wrong one."""
    start = time.process_time()
    with suppress(Exception):
        module.run(room, made)
    return time.process_time() - start


def campaign(kind: str, seed: int, first: int, count: int, most_faults: int = 20) -> dict[str, Any]:
    """``count`` cases from ``first`` on: how they ended, the faults, and the slowest."""
    module = importlib.import_module(kind)
    ends: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    slowest, began, known = (0.0, -1), time.monotonic(), 0

    def hang(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, hang)
    with module.room() as room:
        for number in range(first, first + count):
            made = module.case(Random(f"{kind}:{seed}:{number}"))
            start = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, HANG_S)
            try:
                ends[module.run(room, made)] += 1
            except (Exception, Hang) as error:
                frames = traceback.extract_tb(error.__traceback__)[-3:]
                where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
                faults.append((number, f"{type(error).__name__}: {str(error)[:200]!r} {where}"))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            took = time.perf_counter() - start
            if took > CASE_S and (took := processor_time(module, room, made)) > CASE_S:
                faults.append((number, f"took {took:.1f} s"))
            slowest = max(slowest, (took, number))
            for fault in faults[known:]:
                say("FAULT", *fault)
            known = len(faults)
            if known >= most_faults:
                break
            if number % 50_000 == 0 and count > 50_000:
                say(number, f"{time.monotonic() - began:.0f} s", dict(ends), len(faults))
    seconds = time.monotonic() - began
    tried = number + 1 - first
    return {"tried": tried, "ends": ends, "faults": faults, "slowest": slowest, "seconds": seconds}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("headers", "answers", "pictures"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--only", type=int)
    parser.add_argument("--most-faults", type=int, default=20)
    asked = parser.parse_args()
    prepare()
    module = importlib.import_module(asked.kind)
    if asked.only is not None:
        with module.room() as room:
            made = module.case(Random(f"{asked.kind}:{asked.seed}:{asked.only}"))
            say(repr(made)[:4000])
            say(module.run(room, made))
        return 0
    limit_memory()
    done = campaign(asked.kind, asked.seed, asked.first, asked.count, asked.most_faults)
    took, number = done["slowest"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    say(
        f"{asked.kind}: seed {asked.seed}, {done['tried']} cases in {done['seconds']:.0f} s, "
        f"{len(done['faults'])} faults; {dict(done['ends'])}; slowest {took * 1e3:.0f} ms "
        f"(case {number}); peak {peak} MiB"
    )
    return bool(done["faults"])


if __name__ == "__main__":
    sys.exit(main())
