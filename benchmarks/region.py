"""A region edited and put back: this pack beside others, on edits that are known to the pixel.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/region.py FOLDER [--packages FOLDER] [--write]

FOLDER holds the packs as ``<owner>__<name>`` and a ``COMMITS.txt``, as for ``packs.py``;
``--packages`` what they import. Each tool crops its own crop out of a photograph in which the
painted place is already changed, gets it back drifted, tinted, softened and through JPEG, as an
edit comes back, and puts it into the photograph as it was. So the truth is known everywhere. Those
that crop nothing get the whole photograph. ``--only TEXT`` runs the cases whose name contains it,
``--write`` writes ``benchmarks/results/region.md``.
"""

import argparse
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from bench import ROOT
from scipy.ndimage import distance_transform_edt, gaussian_filter

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import conftest  # noqa: E402, F401  (makes the pack importable without a host)
from photos import drifted, image, jpeg, photo  # noqa: E402

from inprocess import import_comfy  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "region.md"
COMMAND = "COMFYUI_PATH=/path/to/ComfyUI python benchmarks/region.py FOLDER --packages FOLDER"
SEAM = 24
"""Pixels on both sides of the painted edge."""
FAR = 64
"""Pixels from what is painted that every tool's blend leaves alone: "outside"."""
MEGAPIXELS, TARGET = 2.0, 1440
"""What the two that crop may give the model: as much as the largest photograph has for the rest."""
OURS, STITCH, KLEIN, HOST = (
    "this pack", "Inpaint Crop and Stitch", "klein-edit-composite", "ImageCompositeMasked",
)  # fmt: skip

Array = np.ndarray
Edit = Callable[[Array], Array]
Tool = Callable[[Array, Array, Array, Edit], Array]
"""(original, truth, mask, edit) -> result; pictures ``[H, W, 3]``, mask ``[H, W]``."""


class Case(NamedTuple):
    name: str
    picture: Array
    mask: Array
    edit: Edit
    drift: float


class Row(NamedTuple):
    """Levels of 8 bit, and pixels; ``drift`` is what is left of it inside, where it can be told."""

    case: str
    tool: str
    outside: float
    touched: float
    seam: float
    inside: float
    drift: float
    seconds: float


def ellipse(size: tuple[int, int], x: float, y: float, wide: float, high: float) -> Array:
    """A mask of ``size`` (height, width) with an ellipse, in parts of it."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    across = (columns / size[1] - x) / wide
    return (across**2 + ((rows / size[0] - y) / high) ** 2 <= 1).astype(np.float32)


def stroke(size: tuple[int, int], width: int) -> Array:
    """A thin curve over most of the picture."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    curve = size[0] * (0.5 + 0.2 * np.sin(columns / size[1] * 6))
    inside = (columns > size[1] * 0.15) & (columns < size[1] * 0.85)
    return ((np.abs(rows - curve) <= width / 2) & inside).astype(np.float32)


def scenes() -> Iterator[tuple[str, Array, Array]]:
    """(name, photograph, mask), 1 to 60 % of it, at borders, and a stroke."""
    for name, words, shape in (
        ("astronaut", "1 %", (0.45, 0.3, 0.056, 0.056)),
        ("chelsea", "5 %", (0.5, 0.45, 0.11, 0.145)),
        ("retina", "15 %", (0.4, 0.55, 0.2, 0.24)),
        ("coffee", "30 %", (0.5, 0.5, 0.3, 0.32)),
        ("hubble_deep_field", "60 %", (0.5, 0.5, 0.4, 0.48)),
        ("camera", "corner", (1.0, 0.0, 0.3, 0.3)),
        ("rocket", "lower edge", (0.6, 1.0, 0.2, 0.25)),
    ):
        pixels = photo(name)
        yield f"{name}, {words}", pixels, ellipse(pixels.shape[:2], *shape)
    pixels = photo("coins")
    yield "coins, stroke", pixels, stroke(pixels.shape[:2], 7)


def edits() -> Iterator[tuple[str, Edit, float]]:
    """(name, what an edit does to a crop beside what it was asked for, its drift)."""
    yield "JPEG", lambda crop: jpeg(crop, 90), 0.0

    def tinted(crop: Array) -> Array:
        soft = np.stack([gaussian_filter(crop[..., one], 0.6) for one in range(3)], 2)
        return jpeg(soft * np.float32([1.05, 1.0, 0.95]) + 0.015, 90)

    def moved(crop: Array) -> Array:
        return jpeg(drifted(crop, 5.3, -3.6, 1.01) * 1.04 + 0.01, 90)

    yield "tint, blur", tinted, 0.0
    yield "drift, zoom, tint", moved, 6.4


def cases() -> Iterator[Case]:
    """All 24."""
    for scene, pixels, mask in scenes():
        for name, edit, drift in edits():
            yield Case(f"{scene}; {name}", pixels, mask, edit, drift)


def changed(pixels: Array, mask: Array) -> Array:
    """``pixels`` with the painted place recoloured and patterned, fading to nothing at its edge."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    within = np.clip(distance_transform_edt(mask > 0) / 6, 0, 1)[..., None]
    wave = 0.08 * (np.sin(columns / 5) * np.sin(rows / 7))[..., None]
    other = pixels[..., ::-1] * np.array([0.8, 0.6, 0.5]) + np.array([0.1, 0.15, 0.2]) + wave
    return (pixels + within * (other.clip(0, 1) - pixels)).astype(np.float32)


def ours(original: Array, truth: Array, mask: Array, edit: Edit) -> Array:
    from flux2_lora_edit.flux2.region.crop import make_region
    from flux2_lora_edit.flux2.region.lattice import Settings
    from flux2_lora_edit.flux2.region.paste import paste

    painted, settings = torch.from_numpy(mask)[None], Settings(megapixels=MEGAPIXELS)
    asked = make_region(image(truth), painted, settings).crop[0].numpy()
    place = make_region(image(original), painted, settings)
    return paste(place, image(edit(asked))).image[0].numpy()


def composite(original: Array, truth: Array, mask: Array, edit: Edit) -> Array:
    from comfy_extras.nodes_mask import ImageCompositeMasked

    painted = torch.from_numpy(mask)[None]
    given = image(edit(truth))
    return ImageCompositeMasked.execute(image(original), given, 0, 0, False, painted)[0][0].numpy()


def defaults(node: Any) -> dict[str, Any]:
    """What a node's widgets hold when it is put into a graph."""
    found = {}
    for name, (kind, *rest) in node.INPUT_TYPES()["required"].items():
        options = rest[0] if rest else {}
        if isinstance(kind, list) or "default" in options:
            found[name] = options.get("default", kind[0] if isinstance(kind, list) else None)
    return found


def stitch(pack: ModuleType) -> Tool:
    """The rest as it comes."""
    crop_node = pack.NODE_CLASS_MAPPINGS["InpaintCropImproved"]
    paste_node = pack.NODE_CLASS_MAPPINGS["InpaintStitchImproved"]
    given = defaults(crop_node) | {
        "device_mode": "cpu (compatible)", "output_target_width": TARGET,
        "output_target_height": TARGET,
    }  # fmt: skip

    def run(original: Array, truth: Array, mask: Array, edit: Edit) -> Array:
        painted = torch.from_numpy(mask)[None]
        _, asked, _ = crop_node().inpaint_crop(image=image(truth), mask=painted, **given)
        place, _, _ = crop_node().inpaint_crop(image=image(original), mask=painted, **given)
        edited = torch.from_numpy(edit(asked[0].cpu().numpy()))[None]
        return paste_node().inpaint_stitch(place, edited)[0][0].cpu().numpy()

    return run


def klein(pack: ModuleType) -> Tool:
    """With the painted place as its custom mask; the rest as it comes."""
    node = pack.NODE_CLASS_MAPPINGS["KleinEditComposite"]

    def run(original: Array, truth: Array, mask: Array, edit: Edit) -> Array:
        given = defaults(node) | {"custom_mask": torch.from_numpy(mask)[None]}
        inputs = {"generated_image": image(edit(truth)), "original_image": image(original)}
        return node().run(**inputs, **given)[0][0].numpy()

    return run


def load(folder: Path) -> ModuleType:
    """A pack as ComfyUI imports it."""
    name = folder.name.replace("-", "_")
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def slopes(pixels: Array) -> Array:
    return np.stack(np.gradient(pixels, axis=(0, 1)))


def left_over(result: Array, truth: Array, mask: Array) -> float:
    """Pixels by which what is inside still lies off its place, by scikit-image; where there is
    room to measure it."""
    from skimage.registration import phase_cross_correlation

    inner = distance_transform_edt(np.pad(mask, 1) > 0)[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(inner), inner.shape)
    half = int(inner[y, x] / 1.5)
    if half < 24:
        return float("nan")
    box = np.s_[max(0, y - half) : y + half, max(0, x - half) : x + half]
    grey = (one[box].mean(axis=2) for one in (truth, result))
    band = [gaussian_filter(one, 1) - gaussian_filter(one, 4) for one in grey]
    window = np.outer(*(np.hanning(side) for side in band[0].shape))
    shift = phase_cross_correlation(
        band[0] * window, band[1] * window, upsample_factor=100, normalization=None
    )[0]
    return float(np.hypot(*shift))


def measured(case: Case, name: str, tool: Tool) -> Row:
    truth = changed(case.picture, case.mask)
    start = time.process_time()
    result = tool(case.picture, truth, case.mask, case.edit)
    seconds = time.process_time() - start
    away = distance_transform_edt(case.mask == 0)
    within = distance_transform_edt(case.mask > 0)
    far = away > FAR
    error = np.abs(result - case.picture).max(axis=2)[far] * 255
    edge = (away <= SEAM) & (within <= SEAM)
    seam = np.sqrt(np.mean((slopes(result) - slopes(truth))[:, edge] ** 2)) * 255
    inside = np.sqrt(np.mean((result - truth)[case.mask > 0] ** 2)) * 255
    drift = left_over(result, truth, case.mask)
    return Row(
        case.name, name, float(error.max(initial=0)), float(np.mean(error > 0)) * 100,
        float(seam), float(inside), drift, seconds,
    )  # fmt: skip


def tools(folder: Path) -> dict[str, Tool]:
    """Ours, the host's, and those of the packs that ``folder`` has."""
    found = {OURS: ours, HOST: composite}
    for path, name, make in (
        ("lquesada__ComfyUI-Inpaint-CropAndStitch", STITCH, stitch),
        ("supermansundies__comfyui-klein-edit-composite", KLEIN, klein),
    ):
        if (folder / path).is_dir():
            found[name] = make(load(folder / path))
    return found


def summary(rows: list[Row]) -> list[str]:
    """One line a tool: over all cases."""
    lines = [
        "| tool | outside, largest | pixels touched outside | seam, median | best seam in "
        "| inside, median | drift left, largest | seconds, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(row.tool for row in rows))
    best = {}
    for row in rows:
        if row.case not in best or row.seam < best[row.case].seam:
            best[row.case] = row
    for name in names:
        own = [row for row in rows if row.tool == name]
        drifts = [row.drift for row in own if not np.isnan(row.drift)]
        lines.append(
            f"| {name} | {max(row.outside for row in own):.2f} "
            f"| {max(row.touched for row in own):.1f} % "
            f"| {np.median([row.seam for row in own]):.2f} "
            f"| {sum(one.tool == name for one in best.values())} of {len(best)} "
            f"| {np.median([row.inside for row in own]):.2f} "
            f"| {max(drifts, default=np.nan):.2f} | {np.median([row.seconds for row in own]):.2f} |"
        )
    return lines


def page(rows: list[Row], commits: str) -> str:
    lines = [
        "# A region edited and put back", "",
        f"`{COMMAND}`, on {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}. "
        f"Crops of up to {MEGAPIXELS:g} megapixels, for both tools that crop: the two that take "
        "the whole picture have as much, and at 1 megapixel all three had more pixels of the "
        "largest regions than ours. The rest as it comes. Levels are of 8 bit. "
        f"Outside: over {FAR} px from what is painted, against the original. "
        f"Seam: gradients within {SEAM} px of its edge against the truth's, root mean square. "
        "Inside: against the known change. Drift: what is left of it, in pixels of the picture. "
        "Seconds of processor time, both crops of the benchmark in them. The edit is a known one; "
        "no model was run.", "",
        *summary(rows), "", commits, "",
        "| case | tool | outside | touched | seam | inside | drift left | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        drift = "-" if np.isnan(row.drift) else f"{row.drift:.2f}"
        lines.append(
            f"| {row.case} | {row.tool} | {row.outside:.2f} | {row.touched:.1f} % "
            f"| {row.seam:.2f} | {row.inside:.2f} | {drift} | {row.seconds:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.packages:
        sys.path.append(str(arguments.packages))
    import_comfy()
    found = tools(arguments.folder)
    rows = []
    for case in cases():
        if arguments.only in case.name:
            for name, tool in found.items():
                rows.append(measured(case, name, tool))
                print(rows[-1], flush=True)
    commits = (arguments.folder / "COMMITS.txt").read_text("utf-8").split("\n")
    text = page(rows, "; ".join(line for line in commits if line))
    print("\n".join(summary(rows)))
    if arguments.write:
        RESULTS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
