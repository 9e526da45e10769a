"""A file's facts are read once; a new algorithm is one class and one line in the list."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader import adapters
from flux2_lora_edit.lora_loader.adapters.base import Additive, Algorithm, Geometry
from flux2_lora_edit.lora_loader.fuse import fuse
from flux2_lora_edit.lora_loader.read_stack import LoraFiles, LoraStackError, read_stack
from flux2_lora_edit.lora_loader.reading import facts as facts_module
from flux2_lora_edit.lora_loader.reading.info import describe_stack
from flux2_lora_edit.lora_loader.stack import LoraEntry
from host import tiny_loras
from host.tiny import transformer_shapes

H = 256
SHAPES = {f"diffusion_model.{name}": shape for name, shape in transformer_shapes("dev").items()}
PROJ = "double_blocks.0.img_attn.proj"


@pytest.fixture
def lora(tmp_path):
    """Writes a file, and reads it as a stack of one at a scale."""

    def read(weights, metadata=None, scale=1.0):
        path = tmp_path / "ink.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path, metadata)
        entry = LoraEntry(path.name, scale, scale)
        return read_stack([entry], SHAPES, locate=lambda _: path, files=LoraFiles())

    return read


@dataclass(frozen=True, eq=False)
class Outer(Additive):
    """The change of the algorithm below: ``scale * rows x columns``, one number each."""

    by_row = ("rows",)

    rows: torch.Tensor
    columns: torch.Tensor
    scale: float

    def dense(self):
        return torch.outer(self.rows, self.columns) * self.scale

    def add_to(self, weight, strength, first=0):
        weight.add_(self.dense()[first : first + weight.shape[0]], alpha=strength)


class Sway(Algorithm):
    """An algorithm that nobody has thought of yet."""

    name = "Sway"
    endings = {"sway rows": "sway_rows", "sway columns": "sway_columns"}
    required = factors = ("sway_rows", "sway_columns")

    def _geometry(self, shapes):
        return Geometry(shapes["sway_rows"][0], shapes["sway_columns"][0], 2)

    def _read(self, given):
        return Outer(given.tensors["sway_rows"], given.tensors["sway_columns"], given.scale)


def test_a_new_algorithm_is_one_class_and_one_line(lora, monkeypatch):
    monkeypatch.setattr(adapters, "ALGORITHMS", (*adapters.ALGORITHMS, Sway()))
    rows, columns = torch.arange(H).float(), torch.linspace(-1, 1, H)
    stem = f"lora_unet_{PROJ.replace('.', '_')}"
    tensors = {".sway_rows": rows, ".sway_columns": columns, ".alpha": torch.tensor(1.0)}
    stack = lora({stem + ending: tensor for ending, tensor in tensors.items()}, scale=0.5)
    (report,) = stack.reports
    assert (report.kinds, report.ranks, report.file_scales) == ({"Sway": 1}, (2,), (0.5,))
    assert (report.matched, report.total, stack.warnings) == (1, 1, ())
    ((key, (step,)),) = fuse(stack.loras).items()
    weight = torch.zeros(H, H)
    step.effect.add_to(weight, step.scale)
    assert key == f"diffusion_model.{PROJ}.weight"
    torch.testing.assert_close(weight, 0.25 * torch.outer(rows, columns))


def test_a_new_algorithm_is_checked_like_the_others(lora, monkeypatch):
    monkeypatch.setattr(adapters, "ALGORITHMS", (*adapters.ALGORITHMS, Sway()))
    rows, columns = f"{PROJ}.sway_rows", f"{PROJ}.sway_columns"
    for weights, words in (
        ({rows: torch.ones(H)}, "has sway_rows but not sway_columns"),
        ({rows: torch.ones(H + 1), columns: torch.ones(H)}, "made for a weight of 257 x 256"),
        ({rows: torch.ones(H), columns: torch.full((H,), torch.nan)}, "infinity in sway_columns"),
        ({rows: torch.full((H,), 1e30), columns: torch.full((H,), 1e30)}, "product is infinite"),
    ):
        with pytest.raises(LoraStackError, match=words):
            lora(weights)


def counter(monkeypatch, module, name):
    real, calls = getattr(module, name), []

    def counted(*args):
        calls.append(args[0])
        return real(*args)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize("made", [tiny_loras.ai_toolkit(), tiny_loras.diffusers()])
def test_every_key_is_split_and_every_module_looked_at_once(lora, monkeypatch, made):
    keys = counter(monkeypatch, facts_module, "split_key")
    shapes = counter(monkeypatch, adapters, "recognise")
    stack = lora(made.weights, made.metadata)
    assert sorted(keys) == sorted(made.weights)
    assert len(shapes) == stack.reports[0].total


def test_info_counts_too_and_looks_at_the_same_facts(tmp_path, monkeypatch):
    path = tmp_path / "ink.safetensors"
    made = tiny_loras.ai_toolkit()
    save_file(made.weights, path, made.metadata)
    keys = counter(monkeypatch, facts_module, "split_key")
    info, _ = describe_stack([LoraEntry(path.name, 1.0, 1.0)], lambda _: path)
    assert sorted(keys) == sorted(made.weights) and "rank: 8" in info


def test_a_whole_factor_for_another_model_is_told_by_its_width(lora):
    """ai-toolkit's full rank: one factor of the weight's shape, which halves of a LoRA are not."""
    whole = lora({f"diffusion_model.{PROJ}.lora_A.weight": torch.ones(H, H)})
    assert whole.reports[0].kinds == {"full-rank LoRA": 1}
    with pytest.raises(LoraStackError, match=r"trained for a FLUX\.2 of width 384; the model is"):
        lora({f"diffusion_model.{PROJ}.lora_A.weight": torch.ones(384, 384)})


@pytest.mark.parametrize(
    "stem",
    ["clip_l.img_in", "text_model.img_in", "lora_te1_img_in", "te2.img_in", "qwen3_4b.img_in",
     "x.text_encoder_2.img_in", "mistral.img_in", "t5xxl.img_in"],
)  # fmt: skip
def test_a_text_encoders_module_is_never_the_models(lora, stem):
    """Whatever it is called; and the keys go to the host's own loader."""
    adapter = {"lora_A.weight": torch.ones(1, 128), "lora_B.weight": torch.ones(H, 1)}
    both = {
        f"{at}.{name}": tensor.clone()
        for at in (stem, "img_in")
        for name, tensor in adapter.items()
    }
    stack = lora(both)
    (report,) = stack.reports
    assert (report.matched, report.total, report.unmatched) == (1, 1, ())
    assert report.notes == (f"1 modules are a text encoder's: {stem}",)
    assert set(stack.text_encoder_loras[0].keys) == {f"{stem}.{name}" for name in adapter}
    with pytest.raises(LoraStackError, match="trains a text encoder alone"):
        lora({f"{stem}.{name}": tensor for name, tensor in adapter.items()})


@pytest.mark.parametrize("stem", ["time_text_embed.text_embedder.linear_1", "vae.encoder.conv_in"])
def test_what_only_sounds_like_a_text_encoder(lora, stem):
    adapter = {"lora_A.weight": torch.ones(1, 8), "lora_B.weight": torch.ones(8, 1)}
    with pytest.raises(LoraStackError) as caught:
        lora({f"{stem}.{name}": tensor for name, tensor in adapter.items()})
    assert "text encoder" not in str(caught.value)
