"""A thousand jobs with random faults in one real host: paid once each, memory and threads flat.

    python tests/campaign/soak.py --seed 1 --jobs 1000

Every second press meets one of the stand-in's faults (those that end soon), and is pressed again
in health until its pictures are held. A job that the API itself ended (failed, cancelled) is no
payment. Needs COMFYUI_PATH, and Linux.
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "scripts")]

from hosts import Host, Zygote  # noqa: E402
from ledger import Request  # noqa: E402
from stage import Campaign, carry_out, command_line, graph, say, shown  # noqa: E402
from standin_faults import FAULTS  # noqa: E402
from standin_server import Timing  # noqa: E402

# Those that end soon, and whose picture (where there is one) is the one that was asked for.
PASSING = sorted(
    name
    for name, fault in FAULTS.items()
    if fault.expect != "timed_out"
    and fault.at != "cancel"
    and not any(word in name for word in ("hang", "slow", "always", "endless", "unsaid"))
    and not (fault.at == "media" and fault.times == 0)
)
WARM = 0.25
"""The share of the jobs after which memory is expected to stay."""


class SoakCampaign(Campaign):
    """One host, so many jobs."""

    def __init__(self, folder: Path, seed: int, zygote: Zygote | None = None) -> None:
        super().__init__(folder, zygote, places="a")
        self.seed, self.passing = seed, PASSING
        self.chance = random.Random(seed)
        self.ended: Counter[str] = Counter()
        self.faults = self.jobs = 0
        self.sizes: list[tuple[int, int, int]] = []

    def run(self, jobs: int) -> None:
        """So many distinct requests, and what the host holds after every tenth of them."""
        host = self.hosts[0].ready()
        while self.jobs < jobs:
            self._press_some(host)
            if not self.sizes or self.jobs - self.sizes[-1][0] >= jobs / 20:
                self.sizes.append((self.jobs, *held_by(host)))
        self.sizes.append((self.jobs, *held_by(host)))
        self.check_kept([host])

    def _press_some(self, host: Host) -> None:
        many = self.chance.choice((1, 2, 4, 8))
        words = f"soak {self.seed} job {self.jobs}"
        requests = tuple(Request(f"{words} item {item}", self.jobs) for item in range(many))
        fault = self.chance.choice(self.passing) if self.chance.random() < 0.5 else ""
        self.jobs += many
        self.where = f"jobs {self.jobs} ({fault or 'no fault'})"
        self.account.fault, self.account.struck = fault, 0
        self.account.timing = Timing(0.0, self.chance.choice((0.0, 0.1)))
        before = len(self.account.jobs)
        result = self.press(host, graph("list", requests))
        self.account.fault = ""
        self.standin.quiet()
        if fault:
            self.faults += 1
            self.ended[result.status if result else "died"] += 1
            if FAULTS[fault].expect in ("failed", "cancelled"):
                self.ledger.ended |= {job.id for job in self.account.jobs[before:]}
        elif result is None or result.error is not None:
            self.ledger.violations.append(f"{self.where}: failed: {result and result.error}")
        self.check_kept([host])
        if self.missing(requests):
            self.settle(host, graph("list", requests), requests)
        self.ledger.check_once(self.where)

    def growth(self) -> tuple[int, int]:
        """(kB, threads) more at the end than after the warm-up."""
        warm = next(size for size in self.sizes if size[0] >= self.jobs * WARM)
        return self.sizes[-1][1] - warm[1], self.sizes[-1][2] - warm[2]

    def report(self) -> str:
        """The figures."""
        kilobytes, threads = self.growth()
        return "\n".join(
            [
                f"seed {self.seed}: {self.jobs} jobs, {self.presses} presses, {self.faults} with a "
                f"fault ({shown(self.ended)})",
                f"memory {self.sizes[0][1] // 1024} MB at first, {self.sizes[-1][1] // 1024} MB at "
                f"the end, {kilobytes} kB more than after the first quarter; threads {threads:+d}",
                self.money(),
            ]
        )


def held_by(host: Host) -> tuple[int, int]:
    """(kB of memory, threads) of a host that has come to rest."""
    end = time.monotonic() + 5
    while True:
        lines = Path(f"/proc/{host.pid}/status").read_text().splitlines()
        value = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)
                 if name in ("VmRSS", "Threads")}  # fmt: skip
        if not any("runcomfy" in name for name in threads_of(host)) or time.monotonic() > end:
            return int(value["VmRSS"]), int(value["Threads"])
        time.sleep(0.05)


def threads_of(host: Host) -> list[str]:
    tasks = Path(f"/proc/{host.pid}/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir()]


def run(folder: Path, options: argparse.Namespace) -> SoakCampaign:
    with SoakCampaign(folder, options.seed) as campaign:
        if options.fault:
            campaign.passing = [options.fault]
        campaign.run(options.jobs)
    say("\n".join(f"VIOLATION {violation}" for violation in campaign.ledger.violations))
    for jobs, size, many in campaign.sizes:
        say(f"{jobs} jobs: {size // 1024} MB, {many} threads")
    return campaign


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--fault", choices=sorted(FAULTS), metavar="NAME", help="this one alone")
    return carry_out(parser.parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
