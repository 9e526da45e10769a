"""This pack beside other custom node packs: a table of pack, case and error.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/packs.py FOLDER [--packages FOLDER] [--write]

FOLDER holds the packs as ``<owner>__<name>`` and a ``COMMITS.txt`` with a line
``<owner>/<name> <commit>`` for each. ``--packages`` is a folder with what they import (``pip
install --target``); nothing is installed, and the packs are kept off the network. Each pack runs in
a ComfyUI of its own beside this one, the last case with all of them in one. ``--only TEXT`` runs
the cases whose pack or name contains it; ``--write`` writes ``benchmarks/results/packs.md``. Exits
with 1 when a picture is wrong and nobody said so.
"""

import argparse
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench import ROOT
from torch import Tensor

sys.path.append(str(ROOT / "scripts"))

import pack_cases  # noqa: E402  (found through the path set above)
import tiny_gguf  # noqa: E402
from pack_cases import ALL, CORE, Case  # noqa: E402
from pack_host import Host, Pack, Stopped, started  # noqa: E402

from host import models, tiny  # noqa: E402
from host.cache import cache_root  # noqa: E402
from host.server import ServerError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "packs.md"
COMMAND = "COMFYUI_PATH=/path/to/ComfyUI python benchmarks/packs.py FOLDER --packages FOLDER"
OK, SAID, REFUSED = "ok", "wrong, said so", "refused"
ALIKE, WRONG, ABSENT = "as without us", "**wrong**", "not run"
VERDICTS = (OK, REFUSED, SAID, ALIKE, WRONG, ABSENT)
WORDS = 240
HEAD = "| pack | case | error | verdict | words |\n|---|---|---|---|---|"


class Row(NamedTuple):
    pack: str
    case: str
    error: str
    verdict: str
    words: str = ""


def read_packs(folder: Path) -> list[Pack]:
    """The packs of ``folder``. Raises OSError without its COMMITS.txt."""
    lines = (folder / "COMMITS.txt").read_text("utf-8").splitlines()
    commits = [line.split() for line in lines if line.strip()]
    packs = [Pack(name, commit, folder / name.replace("/", "__")) for name, commit in commits]
    return [pack for pack in packs if pack.folder.is_dir()]


def row(case: Case, host: Host, bare: Host) -> Row:
    """One case, from cold caches, against its truth."""
    host.forget()
    where = host if case.beside else bare
    try:
        if case.before:
            case.before(host)
        truth = where.once(case.truth)
        plain = where.once(case.plain) if case.plain else None
    except Stopped as stopped:
        # Their own graph does not run here: nothing to compare ours with.
        return Row(case.pack, case.name, "", ABSENT, f"without our nodes: {stopped}")
    said: list[str] = []
    try:
        for step in case.steps:
            run = step(host)
            said += [run.words] if run else []
    except Stopped as stopped:
        ours = stopped.node.startswith("Flux2Edit")
        told = SAID if stopped.words else WRONG
        words = " ".join([str(stopped), *said, stopped.words])
        return Row(case.pack, case.name, "", REFUSED if ours else told, words)
    assert run is not None and run.latent is not None
    error = difference(run.latent, truth, plain)
    if error <= (case.allowed if case.plain else 0):
        return Row(case.pack, case.name, f"{error:.1e}", OK)
    words = " ".join(dict.fromkeys(filter(None, said)))
    verdict = SAID if words else WRONG
    if case.alike:
        host.forget()
        theirs = difference(host.once(case.alike), truth, plain)
        if not theirs <= case.allowed:
            verdict, words = ALIKE, f"ComfyUI's own LoRA loader in our place: {theirs:.1e}"
    return Row(case.pack, case.name, f"{error:.1e}", verdict, words)


def difference(found: Tensor, truth: Tensor, plain: Tensor | None) -> float:
    """How far off a latent is: a share of what the LoRAs do, or of the truth; inf for a shape."""
    if found.shape != truth.shape:
        return math.inf
    scale = truth if plain is None else truth - plain
    return ((found - truth).norm() / scale.norm()).item()


def rows_of(cases: Iterable[Case], host: Host, bare: Host) -> list[Row]:
    found = []
    for case in cases:
        one = row(case, host, bare)
        here = one.words.replace(str(host.base), "BASE").replace(str(host.base.parent), "")
        found.append(one._replace(words=here))
        print(line(found[-1]), flush=True)
    return found


def line(row: Row) -> str:
    words = " ".join(row.words.split()).replace("|", "\\|")
    words = words if len(words) <= WORDS else words[: WORDS - 3] + "..."
    return f"| {row.pack} | {row.case} | {row.error} | {row.verdict} | {words} |"


def table(rows: Sequence[Row], packs: Sequence[Pack], imported: dict[str, str], about: str) -> str:
    """The whole page: what ran, the rows, and the packs at their commits."""
    counts = {name: sum(row.verdict == name for row in rows) for name in VERDICTS}
    told = ", ".join(f"{count} {name.strip('*')}" for name, count in counts.items())
    installed = [
        f"| [{pack.name}](https://github.com/{pack.name}) | `{pack.commit[:12]}` | "
        f"{imported.get(pack.name, 'not tried')} |"
        for pack in packs
    ]
    return "\n".join(
        [
            "# Beside other packs", "",
            about, f"Command: `{COMMAND} --write`", "",
            "Real packs on a real ComfyUI with tiny random FLUX.2 klein models. The error is the "
            "latent's difference from ComfyUI's own LoRA loader in our place, as a share of what "
            "the LoRAs do to it: 0 is exact, 1 means that nothing of them arrived. Where the case "
            "has no LoRA to lose, the latents must be the same to the bit. Beside a loader or a "
            "sampler of the pack, ComfyUI's LoRA loader stands in the same graph. As without us: "
            "ComfyUI's own loader in our place loses the LoRAs too.", "",
            f"{len(rows)} cases: {told}.", "",
            HEAD, *(line(row) for row in rows), "",
            "## The packs", "",
            "| pack | commit | imported |", "|---|---|---|", *installed, "",
        ]
    )  # fmt: skip


def chosen(packs: Sequence[Pack], only: str) -> dict[str, list[Case]]:
    """Pack -> its cases, for the packs that are here; the core's own first, all at once last."""
    here = {CORE, ALL} | {pack.name for pack in packs}
    found: dict[str, list[Case]] = {CORE: []}
    for case in pack_cases.cases():
        if case.pack in here and only.lower() in f"{case.pack} {case.name}".lower():
            found.setdefault(case.pack, []).append(case)
    return found


def measure(
    packs: Sequence[Pack], wanted: dict[str, list[Case]], comfyui: Path, packages: Path | None
) -> tuple[list[Row], dict[str, str]]:
    """The rows, and of each pack that was installed whether it could be imported."""
    tiny_models = models.every_dir(cache_root())
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packs-")))
        bare = stack.enter_context(started(comfyui, scratch / "bare", [], None, tiny_models))
        rows = rows_of(wanted.pop(CORE, []), bare, bare)
        imported: dict[str, str] = {}
        for number, (name, cases) in enumerate(wanted.items()):
            these = packs if name == ALL else [pack for pack in packs if pack.name == name]
            base = scratch / str(number)
            ggufs(base / "models" / "diffusion_models", cases, packages)
            try:
                host = started(comfyui, base, these, packages, tiny_models)
            except ServerError as error:
                reason = str(error).splitlines()[0]
                rows += [Row(name, case.name, "", ABSENT, reason) for case in cases]
                continue
            with host:
                imported |= {
                    pack.name: host.not_imported(pack.repository) or "yes" for pack in these
                }
                if imported.get(name, "yes") != "yes":
                    rows += [Row(name, case.name, "", ABSENT, imported[name]) for case in cases]
                else:
                    rows += rows_of(cases, host, bare)
    return rows, imported


def ggufs(folder: Path, cases: Iterable[Case], packages: Path | None) -> None:
    """The tiny transformer in the types that ``cases`` load."""
    if not any("GGUF" in case.name for case in cases):
        return
    if packages and str(packages) not in sys.path:
        sys.path.append(str(packages))
    folder.mkdir(parents=True)
    weights = tiny.transformer("klein-9b")
    for kind in tiny_gguf.TYPES:
        tiny_gguf.write(folder / f"tiny-{kind}.gguf", weights, kind)


def main() -> int:
    words = (__doc__ or "").strip()
    parser = argparse.ArgumentParser(description=words.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the packs, with COMMITS.txt")
    parser.add_argument("--packages", type=Path, help="what the packs import")
    parser.add_argument("--only", default="", help="cases whose pack or name contains this")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    given = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (comfyui / "main.py").is_file():
        sys.exit("COMFYUI_PATH names no ComfyUI.")
    packs = read_packs(given.folder.resolve())
    packages = given.packages.resolve() if given.packages else None
    rows, imported = measure(packs, chosen(packs, given.only), comfyui, packages)
    about = (
        f"ComfyUI {comfyui_version(comfyui)}, Python {platform.python_version()}, torch "
        f"{version('torch')}, CPU."
    )
    text = table(rows, packs, imported, about)
    print(text)
    if given.write:
        RESULTS.write_text(text, "utf-8")
    return 1 if any(row.verdict == WRONG for row in rows) else 0


def comfyui_version(comfyui: Path) -> str:
    found: dict[str, str] = {}
    exec((comfyui / "comfyui_version.py").read_text("utf-8"), found)  # noqa: S102
    return found["__version__"]


if __name__ == "__main__":
    sys.exit(main())
