"""Apply files to a real ComfyUI MODEL in this process and read what became of its weights.

Needs ``comfy`` on ``sys.path`` (the fixture ``comfy_inprocess``, or COMFYUI_PATH in a benchmark).
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .base import Base, Truth
from .kind import Built


def load_model(base: Base) -> Any:
    """A ModelPatcher with these weights in fp32, through ComfyUI's own loader."""
    import comfy.sd

    options = {"dtype": torch.float32}
    model = comfy.sd.load_diffusion_model_state_dict(base.checkpoint(), model_options=options)
    assert model is not None, "ComfyUI did not recognise the tiny transformer"
    keys = {k for k in model.model_state_dict() if k.startswith("diffusion_model.")}
    assert keys == set(base.weights), keys ^ set(base.weights)
    return model


def changes(model: Any, base: Base) -> dict[str, Tensor]:
    """Every weight that the patcher changes -> its dense change, fp32 as the weights are."""
    patched = {k: model.patch_weight_to_device(k, return_weight=True) for k in model.patches}
    return {key: weight.float() - base.weights[key] for key, weight in patched.items()}


def changes_beside(model: Any, base: Base) -> dict[str, Tensor]:
    """As ``changes``, with what side paths add: each layer's answer to the unit vectors."""
    found = changes(model, base)
    for run in model.wrappers.get("apply_model", {}).get("flux2_lora_edit", []):
        side_path, strengths = run.args
        side_path.set_gains(strengths, torch.device("cpu"))
        for name, layer in zip(side_path.layouts, side_path.layers, strict=True):
            key = f"{name}.weight"
            rows, columns = base.weights[key].shape
            change = layer.add_to(torch.zeros(columns, rows), torch.eye(columns)).T
            found[key] = found.get(key, 0) + change
    return found


def write(built: Built, folder: Path) -> list[tuple[Path, float]]:
    """Each slot's file in a folder of its own; a file that two slots share is written once."""
    written: dict[int, Path] = {}
    for slot, (file, _) in enumerate(built.slots, start=1):
        if id(file) not in written:
            written[id(file)] = file.write(folder / f"slot{slot}")
    return [(written[id(file)], scale) for file, scale in built.slots]


def listed_fits(base: Base, path: Path) -> bool | None:
    """What the picker's list says of a file for this model; no disk but the file is touched."""
    from flux2_lora_edit.flux2.variants import identify
    from flux2_lora_edit.lora_loader.catalogue import Catalogue, installed_files
    from flux2_lora_edit.lora_loader.reading.layout import Layout
    from flux2_lora_edit.lora_loader.reading.listing import ModelFile

    shapes = {key: tuple(weight.shape) for key, weight in base.weights.items()}
    model = ModelFile(identify(shapes), Layout(shapes), base.geometry)
    catalogue = Catalogue(lambda: path / "a file is no folder")
    (row,) = catalogue.rows(installed_files([path.name], [path.parent]), model)
    return row.fits


def apply_core(model: Any, files: Iterable[tuple[Path, float]]) -> Any:
    """ComfyUI's own loader, as its LoraLoaderModelOnly node calls it."""
    import comfy.sd
    import comfy.utils

    # One "lora key not loaded" line a key is what the table is about; not in a test's output.
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        for path, scale in files:
            tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
            try:
                model, _ = comfy.sd.load_lora_for_models(
                    model, None, tensors, scale, 0, lora_metadata=metadata
                )
            except TypeError:  # hosts before lora_metadata
                model, _ = comfy.sd.load_lora_for_models(model, None, tensors, scale, 0)
    finally:
        logging.getLogger().setLevel(logging.WARNING)
    return model


class Ours(NamedTuple):
    """What the pack made of a stack: the patched clone (None for a plan alone), and its words."""

    model: Any
    stack: Any

    @property
    def words(self) -> str:
        """Everything that a user is told: every field of each LoRA's report, and the warnings."""
        return "\n".join([repr(self.stack.reports), *self.stack.warnings])


def plan_ours(model: Any, files: Iterable[tuple[Path, float]], **how: str) -> Ours:
    """The pack's reading and checking of a stack against a MODEL's shapes; ``how`` is
    ``read_stack``'s own."""
    from flux2_lora_edit.lora_loader.patch import weight_shapes
    from flux2_lora_edit.lora_loader.read_stack import LoraFiles, read_stack
    from flux2_lora_edit.lora_loader.sources.source import InstalledSource
    from flux2_lora_edit.lora_loader.stack import LoraEntry

    entries, paths = [], {}
    for slot, (path, scale) in enumerate(files, start=1):
        source = InstalledSource(path.name)
        entry = LoraEntry(path.name, scale, scale, source, f"LoRA slot {slot}")
        entries.append(entry)
        paths[entry.slot] = path
    stack = read_stack(
        entries,
        weight_shapes(model),
        locate=lambda entry: paths[entry.slot],
        files=LoraFiles(),
        **how,
    )
    return Ours(None, stack)


def apply_ours(
    model: Any, files: Iterable[tuple[Path, float]], mode: str = "merge", **how: str
) -> Ours:
    """The pack's own way onto a clone of the MODEL, as its node goes it."""
    return applied(model, plan_ours(model, files, **how).stack, mode)


def applied(model: Any, stack: Any, mode: str = "merge") -> Ours:
    """A stack that was planned, onto a clone of the MODEL."""
    from flux2_lora_edit.lora_loader.patch import apply_stack

    return Ours(apply_stack(model, stack.loras, mode).model, stack)


def errors(changed: dict[str, Tensor], truth: Truth) -> dict[str, float]:
    """Key -> ||got - true|| / ||true||; a change where none should be counts as infinite."""
    result = {}
    for key in truth.keys() | changed.keys():
        got, true = changed.get(key), truth.get(key)
        if true is None or true.norm() == 0:
            result[key] = 0.0 if got.abs().max() == 0 else float("inf")
        elif got is None:
            result[key] = 1.0
        else:
            error = ((got - true).norm() / true.norm()).item()
            result[key] = error if error == error else float("inf")
    return result


def total_error(changed: dict[str, Tensor], truth: Truth) -> float:
    """||got - true|| / ||true|| over the whole model: one figure for a table."""
    keys = truth.keys() | changed.keys()
    zero = torch.zeros(1, dtype=torch.float64)
    wrong = sum(((changed.get(k, zero) - truth.get(k, zero)) ** 2).sum().item() for k in keys)
    right = sum((delta**2).sum().item() for delta in truth.values())
    return (wrong / right) ** 0.5 if right else float("nan")
