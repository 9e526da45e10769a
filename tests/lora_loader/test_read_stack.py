"""A stack against a model's shapes: what is read, what is refused, and the words for it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.flux2.variants import NotFlux2Error, identify
from flux2_lora_edit.lora_loader.fuse import fuse
from flux2_lora_edit.lora_loader.read_stack import LoraFiles, LoraStackError, read_stack
from flux2_lora_edit.lora_loader.reading.report import Report
from flux2_lora_edit.lora_loader.stack import LoraEntry
from host import tiny_loras
from host.tiny import transformer_shapes

H = 256


def shapes(variant="dev", **sizes):
    names = transformer_shapes(variant, **sizes).items()
    return {f"diffusion_model.{n.replace('_norm.scale', '_norm.weight')}": s for n, s in names}


MODEL = shapes()


class Library:
    """LoRA files in a folder, and stacks of them read against a model."""

    def __init__(self, folder):
        self.folder, self.files, self.located = folder, LoraFiles(), []

    def put(self, name, weights, metadata=None):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        save_file({k: v.contiguous() for k, v in weights.items()}, path, metadata)
        return name

    def read(self, *stack, model=MODEL, **how):
        pairs = (item if isinstance(item, tuple) else (item, 1.0) for item in stack)
        entries = [
            LoraEntry(name, scale, scale, None, f"LoRA slot {slot}")
            for slot, (name, scale) in enumerate(pairs, 1)
        ]
        return read_stack(entries, model, locate=self.locate, files=self.files, **how)

    def locate(self, entry):
        self.located.append(entry.name)
        return self.folder / entry.name


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path)


def pair(rows=H, columns=H, rank=4, value=0.01):
    down = torch.full((rank, columns), value, dtype=torch.bfloat16)
    return {"lora_A.weight": down, "lora_B.weight": torch.full((rows, rank), value).bfloat16()}


def lora(stem="diffusion_model.double_blocks.0.img_attn.proj", **parts):
    return {f"{stem}.{part}": tensor for part, tensor in (parts or pair()).items()}


QKV_IN = "diffusion_model.double_blocks.0.img_attn.qkv"


def test_one_weight_one_plan_whatever_the_trainers(library):
    for name, made in (("a", tiny_loras.ai_toolkit()), ("b", tiny_loras.diffusers())):
        library.put(f"{name}.safetensors", made.weights, made.metadata)
    stack = library.read("a.safetensors", ("b.safetensors", 0.5))
    assert len(fuse(stack.loras)) == 22
    assert [(s.start, s.rows) for s in fuse(stack.loras)[f"{QKV_IN}.weight"]] == [
        (0, H), (H, H), (2 * H, H),
    ]  # fmt: skip
    assert len(fuse(stack.loras)["diffusion_model.single_blocks.2.linear1.weight"]) == 1
    assert [(r.matched, r.total) for r in stack.reports] == [(22, 22), (30, 30)]
    assert stack.reports[1].file_scales == (0.5,)


def test_scale_zero_is_not_even_located(library):
    stack = library.read(("missing.safetensors", 0.0))
    assert fuse(stack.loras) == {} and library.located == []


def test_one_file_in_two_slots_is_one_at_the_sum(library):
    library.put("a.safetensors", lora())
    stack = library.read(("a.safetensors", 0.25), ("a.safetensors", 0.5))
    (steps,) = fuse(stack.loras).values()
    assert len(steps) == 1 and steps[0].effect.scale * steps[0].scale == 0.75
    assert len(stack.reports) == 1 and "twice" in stack.warnings[0]
    assert fuse(library.read(("a.safetensors", 0.5), ("a.safetensors", -0.5)).loras) == {}


def test_a_file_under_two_names_is_one(library):
    library.put("a.safetensors", lora())
    (library.folder / "b.safetensors").symlink_to(library.folder / "a.safetensors")
    stack = library.read(("a.safetensors", 0.25), ("b.safetensors", 0.5))
    assert [report.scale for report in stack.reports] == [0.75]


def for_the_text_encoder_alone(library, name, clip=0.5):
    entry = LoraEntry(name, 0.0, clip)
    return read_stack([entry], MODEL, locate=library.locate, files=library.files)


def test_strength_0_for_the_model_leaves_the_text_encoders_part(library):
    text = {f"lora_te1_x.lora_{part}.weight": torch.ones(2, 2) for part in ("up", "down")}
    stack = for_the_text_encoder_alone(library, library.put("a.safetensors", text | lora()))
    assert [(one.scale, set(one.keys)) for one in stack.text_encoder_loras] == [(0.5, set(text))]
    assert fuse(stack.loras) == {} and stack.warnings == ()
    assert (stack.reports[0].scale, stack.reports[0].clip_scale) == (0, 0.5)
    # What the file holds for a model it was not made for is not refused: none of it is used.
    alone = for_the_text_encoder_alone(library, library.put("b.safetensors", text))
    assert len(alone.text_encoder_loras) == 1 and alone.warnings == ()
    with pytest.raises(LoraStackError, match="trains a text encoder alone"):
        library.read("b.safetensors")


def test_strength_0_for_the_model_of_a_file_without_another_part_is_said(library):
    stack = for_the_text_encoder_alone(library, library.put("a.safetensors", lora()))
    assert stack.text_encoder_loras == () and "has no other part" in stack.warnings[0]
    assert [report.clip_scale for report in stack.reports] == [None]


def test_two_namings_of_one_module_add(library):
    both = lora() | lora("lora_unet_double_blocks_0_img_attn_proj", **pair(value=0.02))
    stack = library.read(library.put("a.safetensors", both))
    (steps,) = fuse(stack.loras).values()
    assert steps[0].effect.up.shape[1] == 8
    assert "two names" in stack.reports[0].notes[0]


def test_the_same_part_twice_is_refused(library):
    twice = lora() | {f"{QKV_IN[:-3]}proj.lora_down.weight": torch.ones(4, H)}
    with pytest.raises(LoraStackError, match="same part twice"):
        library.read(library.put("a.safetensors", twice))


def test_alpha_without_an_adapter_name_belongs_to_the_named_adapter(library):
    named = {"lora_A.ink.weight": torch.ones(4, H), "lora_B.ink.weight": torch.ones(H, 4)}
    stack = library.read(library.put("a.safetensors", lora(**named, alpha=torch.tensor(1.0))))
    assert stack.reports[0].file_scales == (0.25,)


def test_settings_beside_a_file_count_where_they_are_surely_its_own(library):
    config = json.dumps({"peft_type": "LORA", "lora_alpha": 1, "r": 4})
    weights = lora("base_model.model.double_blocks.0.img_attn.proj")
    for name in ("one/x.safetensors", "two/adapter_model.safetensors", "two/x.safetensors"):
        library.put(name, weights)
    for folder in ("one", "two"):
        (library.folder / folder / "adapter_config.json").write_text(config)
    assert library.read("one/x.safetensors").reports[0].file_scales == (0.25,)
    assert library.read("two/adapter_model.safetensors").reports[0].file_scales == (0.25,)
    other = library.read("two/x.safetensors")
    assert other.reports[0].file_scales == (1.0,) and "is not used" in other.warnings[0]


def refusal(library, weights, metadata=None, **how):
    name = library.put("styles/ink.safetensors", weights, metadata)
    with pytest.raises(LoraStackError) as caught:
        library.read(name, **how)
    text = str(caught.value)
    assert text.startswith("LoRA slot 1") and text.endswith("\nstyles/ink.safetensors"), text
    return text


def test_another_width(library):
    made = tiny_loras.ai_toolkit(hidden=384)
    text = refusal(library, made.weights)
    assert text.startswith("LoRA slot 1 was trained for a FLUX.2 of width 384; the model is a FLUX")


@pytest.mark.parametrize(("width", "name"), [(6144, "dev"), (4096, "klein 9B"), (3072, "klein 4B")])
def test_a_released_size_is_named(library, width, name):
    text = refusal(library, lora(QKV_IN, **pair(3 * width, width, rank=1)))
    assert f"trained for FLUX.2 {name} (width {width})" in text


def test_deeper_than_the_model(library):
    made = tiny_loras.ai_toolkit(double=5, single=3)
    assert "at least 5 double and 3 single blocks" in refusal(library, made.weights)


KLEIN_4B = shapes("klein-4b", hidden=3072, context=7680, double=5, single=20)


@pytest.mark.parametrize(
    ("stem", "rows", "columns"),
    [
        ("diffusion_model.double_blocks.0.img_mod.lin", 6 * 3072, 3072),
        ("lora_unet_single_blocks_3_modulation_lin", 3 * 3072, 3072),
        ("transformer.single_transformer_blocks.3.proj_out", 3072, 15360),
        ("transformer.single_transformer_blocks.3.attn.to_q", 3072, 3072),
        ("transformer.transformer_blocks.0.norm1.linear", 6 * 3072, 3072),
        ("transformer.transformer_blocks.0.ff.net.0.proj", 4 * 3072, 3072),
        ("diffusion_model.double_blocks.7.img_attn.qkv", 3 * 3072, 3072),
        ("lora_unet_single_blocks_37_linear2", 3072, 15360),
        ("diffusion_model.single_blocks.0.linear1", 21504, 3072),
        ("diffusion_model.double_blocks.0.img_mlp.0", 4 * 3072, 3072),
        ("diffusion_model.vector_in.in_layer", 3072, 768),
    ],
)
def test_flux1_is_told_from_klein_4b(library, stem, rows, columns):
    """The file's attention fits klein 4B's shapes; one more module gives it away."""
    fits = lora("diffusion_model.double_blocks.0.img_attn.proj", **pair(3072, 3072, 1))
    text = refusal(library, fits | lora(stem, **pair(rows, columns, 1)), model=KLEIN_4B)
    assert "trained for FLUX.1" in text and "the model is FLUX.2 klein 4B" in text


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_base_model_version": "flux1"},
        {"modelspec.architecture": "flux-1-dev/lora"},
        {"modelspec.architecture": "Flux.1-dev"},
    ],
)
def test_flux1_is_told_by_its_metadata(library, metadata):
    fits = lora(**pair(3072, 3072, 1))
    assert "FLUX.1" in refusal(library, fits, metadata, model=KLEIN_4B)


def test_a_klein_4b_lora_is_not_taken_for_flux1(library):
    made = lora(**pair(3072, 3072, 1)) | lora(
        "diffusion_model.single_blocks.19.linear1", **pair(9 * 3072, 3072, 1)
    )
    name = library.put("a.safetensors", made, {"ss_base_model_version": "flux2_klein_4b"})
    stack = library.read(name, model=KLEIN_4B)
    assert stack.reports[0].trained_for == "FLUX.2 klein 4B (width 3072)"


def test_warn_names_flux1_and_applies_what_fits(library):
    mixed = lora(**pair(3072, 3072, 1)) | lora(
        "diffusion_model.double_blocks.0.img_mod.lin", **pair(6 * 3072, 3072, 1)
    )
    stack = library.read(library.put("a.safetensors", mixed), model=KLEIN_4B, on_mismatch="warn")
    assert len(fuse(stack.loras)) == 1 and "FLUX.1" in stack.warnings[0]


PROJ = "diffusion_model.double_blocks.0.img_attn.proj"
MLP = "diffusion_model.double_blocks.0.img_mlp.2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"{MLP}.lora_A.weight": torch.ones(4, H), f"{MLP}.lora_B.weight": torch.ones(3 * H, 4)},
         f"wrong shape: {MLP} was made for a weight of 768 x 256; the model's is 256 x 768"),
        ({f"{MLP}.lora_A.weight": torch.ones(4, 3 * H)}, f"other half: {MLP} has down but not up"),
        ({f"{MLP}.lora_B.weight": torch.ones(H, 4)}, f"other half: {MLP} has up but not down"),
        ({f"{MLP}.diff": torch.full((H, 3 * H), torch.nan)}, f"infinity.*{MLP} holds NaN"),
        ({f"{MLP}.alpha": torch.tensor(1.0)}, f"{MLP} has only alpha"),
    ],
)  # fmt: skip
def test_misfits(library, change, words):
    import re

    assert re.search(words, refusal(library, lora() | change))
    name = library.put("a.safetensors", lora() | change)
    stack = library.read(name, on_mismatch="warn")
    assert list(fuse(stack.loras)) == [f"{PROJ}.weight"] and MLP in stack.warnings[0]


def test_nothing_matches(library):
    text = refusal(library, lora("unet.down_blocks.0.attn1.to_q", **pair(64, 64)))
    assert "matches none of the model's modules: its names are like unet.down_blocks" in text


def test_no_tensors(library):
    assert "no tensors" in refusal(library, {})


def test_a_whole_model(library):
    weights = {name: torch.zeros(shape) for name, shape in transformer_shapes("dev").items()}
    assert "is a whole model" in refusal(library, weights)


def test_a_damaged_file(library):
    (library.folder / "a.safetensors").write_bytes(b"<!DOCTYPE html>" * 9)
    with pytest.raises(LoraStackError, match=r"LoRA slot 1: The file is a web page.*\na\.saf"):
        library.read("a.safetensors", on_mismatch="warn")


def test_unsupported_parts_are_named(library):
    extra = {f"{PROJ}.lora_B.bias": torch.ones(H), "strange.module.lora_A.weight": torch.ones(1, 1)}
    stack = library.read(library.put("a.safetensors", lora() | extra))
    (report,) = stack.reports
    assert PROJ in report.unsupported[0] and report.unmatched == ("strange.module",)
    assert len(stack.warnings) == 2


def test_an_interrupt_goes_through(library):
    library.put("a.safetensors", lora())

    class Interrupted(Exception):
        pass

    def stop():
        raise Interrupted

    with pytest.raises(Interrupted):
        library.read("a.safetensors", before_each=stop)


def test_another_model_is_refused():
    with pytest.raises(NotFlux2Error, match="FLUX.1"):
        identify({"double_blocks.0.img_mod.lin.weight": (1, 1), "img_in.weight": (1, 1)})


def test_the_reports_json_has_a_fixed_shape(library):
    made = tiny_loras.ai_toolkit()
    stack = library.read(library.put("a.safetensors", made.weights, made.metadata))
    report = Report(stack.model, "auto", "merge", "why", stack.reports, stack.warnings)
    table = json.loads(report.to_json())
    assert set(table) == {"schema", "model", "mode", "loras", "warnings"} and table["schema"] == 1
    assert set(table["loras"][0]) == {
        "slot", "name", "source", "trained_for", "trainer", "naming", "kinds", "ranks", "scale",
        "file_scales", "matched", "total", "unmatched", "misshapen", "unpaired", "not_finite",
        "unsupported", "notes", "order_matters", "clip_scale", "modifiers",
    }  # fmt: skip
    assert "a.safetensors: matched 22/22, rank 8" in report.to_text()


@pytest.mark.parametrize(
    ("trainer", "prefix", "metadata"),
    [
        ("ai-toolkit", "diffusion_model.", {"software": '{"name": "ai-toolkit"}'}),
        ("ai-toolkit", "diffusion_model.", {"training_info": "", "lycoris_config": "{}"}),
        ("OneTrainer", "transformer.", {"ot_branch": "master"}),
        ("musubi-tuner", "lora_unet_", {"ss_network_module": "networks.lora_flux_2"}),
        ("musubi-tuner", "lora_unet_", {"modelspec.architecture": "Flux.2-dev/lora"}),
        ("kohya", "lora_unet_", {"ss_network_module": "networks.lora"}),
        ("kohya naming", "lora_unet_", {"ss_network_module": ""}),
        ("SimpleTuner", "lycoris_", {"lycoris_config": ""}),
        ("diffusers", "transformer.", {"lora_adapter_metadata": "{}"}),
        ("PEFT", "base_model.model.", {"modelspec.architecture": "a Flux.2-like one"}),
        ("LyCORIS", "lycoris_", {}),
        ("", "my.base_model.model.", {}),
    ],
)
def test_the_trainer_is_told_by_the_first_of_its_signs(library, trainer, prefix, metadata):
    weights = lora(f"{prefix}double_blocks.0.img_attn.proj")
    stack = library.read(library.put("a.safetensors", weights, metadata))
    assert stack.reports[0].trainer == trainer


def test_diffsynth_is_told_by_peft_s_default_adapter(library):
    named = {"lora_A.default.weight": torch.ones(4, H), "lora_B.default.weight": torch.ones(H, 4)}
    stack = library.read(library.put("a.safetensors", lora(**named)))
    assert stack.reports[0].trainer == "DiffSynth-Studio"


def test_a_transform_says_that_its_order_matters(library):
    dora = lora(**pair(), dora_scale=torch.ones(H, 1))
    stack = library.read(library.put("a.safetensors", dora))
    assert stack.reports[0].order_matters and stack.reports[0].kinds == {"DoRA": 1}


@pytest.mark.parametrize(
    ("hint", "model_file", "warns"),
    [
        ("FLUX.2-klein-base-9B", "flux-2-klein-9b.safetensors", True),
        ("FLUX.2-klein-base-9B", "flux-2-klein-base-9b.safetensors", False),
        ("FLUX.2-klein-9B-base", "flux-2-klein-9b-fp8.safetensors", True),
        ("flux2_klein_9b", "flux-2-klein-9b.safetensors", False),
        ("FLUX.2-klein-base-9B", "", False),
        ("klein 9b distilled", "flux-2-klein-base-9b.safetensors", True),
    ],
)
def test_base_and_distilled_klein_are_told_by_words(library, hint, model_file, warns):
    name = library.put("a.safetensors", lora(), {"ss_base_model_version": hint})
    stack = library.read(name, model=shapes("klein-9b"), model_file=model_file)
    assert len(fuse(stack.loras)) == 1
    assert any("was trained on" in warning for warning in stack.warnings) == warns


def test_a_moved_slider_makes_nothing_again(library, monkeypatch):
    """One changed slot costs that slot, a changed scale nothing; a changed config counts."""
    from flux2_lora_edit.lora_loader import read_stack as module

    real, made = module.read_lora, []

    def counted(entry, *args):
        made.append(entry.name)
        return real(entry, *args)

    monkeypatch.setattr(module, "read_lora", counted)
    for name in "abc":
        library.put(f"{name}/lora.safetensors", lora())
    stack = [(f"{name}/lora.safetensors", 1.0) for name in "abc"]
    first = library.read(*stack[:2])
    assert made == [name for name, _ in stack[:2]]
    moved = library.read(stack[0], (stack[1][0], 0.25))
    assert len(made) == 2
    assert [report.scale for report in moved.reports] == [1.0, 0.25]
    assert [report.scale for report in first.reports] == [1.0, 1.0]
    assert moved.loras[1].identity == first.loras[1].identity
    assert moved.loras[1].steps is first.loras[1].steps
    library.read(stack[0], stack[2])
    assert made[2:] == ["c/lora.safetensors"]
    (library.folder / "a" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 2, "r": 4})
    )
    assert library.read(stack[0], stack[2]).reports[0].file_scales == (0.5,)
    assert made[3:] == ["a/lora.safetensors"]
    library.read(stack[0], model=shapes("klein-9b"), on_mismatch="warn")
    assert made[4:] == ["a/lora.safetensors"], "another model is another question"
