"""How long the picker's list takes over many installed LoRAs: cold, from the disk, and warm.

    python benchmarks/lora_files.py [--files 2000] [--write]

The files have whole headers, as their trainers write them, and holes for tensors. "Plain pass" is
what no list can do without: a stat of each file, and its header read. ``--write`` puts the table
into ``benchmarks/results/lora_files.md``.
"""

import argparse
import json
import os
import platform
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import conftest  # noqa: E402, F401  (makes the pack importable)
import paper_models  # noqa: E402

from flux2_lora_edit.lora_loader.catalogue import Catalogue, installed_files  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "lora_files.md"
Modules = dict[str, tuple[int, int]]
# Of each hundred files, how many are of which base.
FOLDER = {"dev": 30, "klein-9b": 15, "klein-4b": 10, "flux.1": 25, "sdxl": 20}
RANKS, DTYPES = (4, 8, 16, 32, 64, 128), ("BF16", "F16")


def flux2(size: str) -> Modules:
    """Every Linear of the blocks, by BFL's names."""
    h, _, double, single = paper_models.SIZES[size]
    inside = {"attn.qkv": (3 * h, h), "attn.proj": (h, h), "mlp.0": (6 * h, h), "mlp.2": (h, 3 * h)}
    both = product(range(double), ("img", "txt"), inside.items())
    modules = {f"double_blocks.{n}.{stream}_{name}": shape for n, stream, (name, shape) in both}
    for n in range(single):
        modules |= {f"single_blocks.{n}.linear1": (9 * h, h)}
        modules |= {f"single_blocks.{n}.linear2": (h, 4 * h)}
    return modules


def flux1() -> Modules:
    """Likewise of FLUX.1, as kohya trains it."""
    h = 3072
    inside = {"attn.qkv": (3 * h, h), "attn.proj": (h, h), "mlp.0": (4 * h, h), "mlp.2": (h, 4 * h)}
    both = product(range(19), ("img", "txt"), inside.items())
    modules = {f"double_blocks.{n}.{stream}_{name}": shape for n, stream, (name, shape) in both}
    for n in range(38):
        modules |= {f"single_blocks.{n}.linear1": (7 * h, h)}
        modules |= {f"single_blocks.{n}.linear2": (h, 5 * h)}
    return modules


def sdxl() -> Modules:
    """722 modules, as kohya trains a U-Net with both text encoders."""
    inside = ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn2_to_q", "attn2_to_out_0")
    deep = {"input_blocks_7_1": 10, "input_blocks_8_1": 10, "middle_block_1": 10,
            "output_blocks_0_1": 10, "output_blocks_1_1": 10, "output_blocks_2_1": 10}  # fmt: skip
    modules = {
        f"{block}_transformer_blocks_{n}_{name}": (1280, 1280)
        for block, depth in deep.items()
        for n, name in product(range(depth), inside)
    }
    modules |= {f"input_blocks_7_1_transformer_blocks_{n}_attn2_to_k": (1280, 2048)
                for n in range(10)}  # fmt: skip
    return modules | {f"te2_layers_{n}_mlp_fc{m}": (1280, 1280) for n in range(32) for m in (1, 2)}


def header(base: str, rank: int, dtype: str, dotted: bool, number: int) -> tuple[bytes, int]:
    """A header's bytes, and how many bytes of tensors follow."""
    modules = flux1() if base == "flux.1" else sdxl() if base == "sdxl" else flux2(base)
    dotted = dotted and base != "sdxl"
    names = ("lora_A.weight", "lora_B.weight") if dotted else ("lora_down.weight", "lora_up.weight")
    tags = {f"tag {n}": 1 + n % 40 for n in range(400)}
    version = {"dev": "flux2", "flux.1": "flux1", "sdxl": "sdxl_base_v1-0"}
    metadata = {
        "format": "pt", "modelspec.title": f"lora {number}", "sshs_model_hash": f"{number:064x}",
        "ss_base_model_version": version.get(base, f"flux2_{base.replace('-', '_')}"),
    }  # fmt: skip
    if number % 3 == 0:
        metadata["ss_tag_frequency"] = json.dumps({"img": tags | {f"subject{number}": 500}})
    else:
        metadata["modelspec.trigger_phrase"] = f"subject{number}"
    table: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (out, into) in modules.items():
        stem = f"diffusion_model.{name}" if dotted else f"lora_unet_{name.replace('.', '_')}"
        shapes = {names[0]: [rank, into], names[1]: [out, rank]}
        for leaf, shape in (shapes if dotted else shapes | {"alpha": []}).items():
            size = 2 * (shape[0] * shape[1] if shape else 1)
            table[f"{stem}.{leaf}"] = {
                "dtype": dtype, "shape": shape, "data_offsets": [end, end + size],
            }  # fmt: skip
            end += size
    return json.dumps(table, separators=(",", ":")).encode(), end


def write_files(folder: Path, files: int, distinct: bool) -> int:
    """Fills the folder; gives the bytes of all headers. ``distinct``: no two are alike."""
    chance, total = random.Random(7), 0  # noqa: S311 (the same folder each time)
    for number in range(files):
        (base,) = chance.choices(list(FOLDER), list(FOLDER.values()))
        rank = number + 1 if distinct else chance.choice(RANKS)
        text, data = header(base, rank, chance.choice(DTYPES), chance.random() < 0.7, number)
        path = folder / f"folder {number % 40}" / f"{base} {number}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + data)
        total += len(text)
    return total


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def plain_pass(paths: list[Path]) -> None:
    for path in paths:
        os.stat(path)
        with path.open("rb") as file:
            file.read(int.from_bytes(file.read(8), "little"))


def measure(files: int, distinct: bool, repeats: int) -> Iterator[tuple[str, float]]:
    """(what, seconds) of a folder of so many files, on a dev model."""
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name) / "loras", Path(name) / "kept.json"
        size = write_files(folder, files, distinct)
        paths = sorted(folder.rglob("*.safetensors"))
        names = [str(path.relative_to(folder)) for path in paths]
        model = Catalogue(lambda: kept).model(
            paper_models.transformer(Path(name) / "dev.safetensors", "dev")
        )
        yield "headers (MB)", size / 1e6

        def listed(catalogue: Catalogue) -> list:
            return catalogue.rows(installed_files(names, [folder]), model)

        def cold() -> None:
            kept.unlink(missing_ok=True)
            assert len(listed(Catalogue(lambda: kept))) == files

        yield "plain pass", seconds(lambda: plain_pass(paths), repeats)
        yield "cold", seconds(cold, repeats)
        yield "from the kept file", seconds(lambda: listed(Catalogue(lambda: kept)), repeats)
        warm = Catalogue(lambda: kept)
        rows = listed(warm)
        assert sum(row.fits is True for row in rows) == sum("dev " in name for name in names)
        yield "warm, the whole list", seconds(lambda: listed(warm), 3 * repeats)
        yield (
            "warm, unchanged (ETag)",
            seconds(lambda: installed_files(names, [folder]), 3 * repeats),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    alike = dict(measure(asked.files, False, asked.repeats))
    distinct = dict(measure(asked.files, True, asked.repeats))
    lines = [
        "# The picker's list",
        "",
        f"{asked.files} installed LoRAs, medians of {asked.repeats}. Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, files in the system's cache. "
        "`python benchmarks/lora_files.py --write` writes this file.",
        "",
        "| | as in a user's folder | no two headers alike |",
        "|---|---|---|",
    ]
    for what in alike:
        both = (table[what] for table in (alike, distinct))
        if "MB" in what:
            cells = [f"{value:.0f}" for value in both]
        else:
            cells = [f"{value * 1000:,.0f} ms" for value in both]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    ratios = [table["cold"] / table["plain pass"] for table in (alike, distinct)]
    lines.append(f"| cold / plain pass | {' | '.join(f'{ratio:.0f}' for ratio in ratios)} |")
    text = "\n".join(lines) + "\n"
    if asked.write:
        RESULTS.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
