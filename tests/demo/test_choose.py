"""``--models DIR``: what the files' headers tell, what is chosen of them, and what is said."""

import os
from pathlib import Path

import pytest
from paper_models import MISTRAL, QWEN_4B, QWEN_8B, encoder, lora, transformer, vae, write

from host.commands import demo
from host.demo import choose
from host.demo.choose import Named
from host.demo.machine import Device
from host.demo.survey import models_folder, survey

CPU, CUDA = Device("cpu", "the CPU", 32 << 30), Device("cuda", "a GPU", 64 << 30, 24 << 30)


@pytest.fixture
def klein(tmp_path):
    """A folder with klein 4B and what belongs to it, in ComfyUI's layout."""
    transformer(tmp_path / "diffusion_models/flux-2-klein-4b.safetensors")
    encoder(tmp_path / "text_encoders/qwen_3_4b.safetensors")
    vae(tmp_path / "vae/flux2-vae.safetensors")
    return tmp_path


def chosen(folder: Path, device: Device = CPU, **named):
    return choose.choose(survey(folder), Named(**named), device)


@pytest.mark.parametrize(
    ("variant", "name", "table", "settings"),
    [
        ("dev", "flux2_dev_fp8mixed", MISTRAL, (28, 2.5, False)),
        ("klein-9b", "flux-2-klein-9b", QWEN_8B, (4, 1.0, False)),
        ("klein-4b", "flux-2-klein-4b", QWEN_4B, (4, 1.0, False)),
        ("klein-4b", "flux-2-klein-base-4b", QWEN_4B, (20, 4.0, True)),
    ],
)
def test_the_model_tells_its_settings_and_its_encoder(tmp_path, variant, name, table, settings):
    transformer(tmp_path / f"diffusion_models/{name}.safetensors", variant)
    for other, words in (("a", QWEN_4B), ("b", QWEN_8B), ("c", MISTRAL), ("d", (256000, 2560))):
        encoder(tmp_path / f"text_encoders/{other}.safetensors", words)
    vae(tmp_path / "vae/flux2-vae.safetensors")
    write(tmp_path / "vae/ae.safetensors", {"decoder.conv_in.weight": (512, 16, 3, 3)})
    trial = chosen(tmp_path)
    assert (trial.steps, trial.guidance, trial.negative) == settings
    letter = {QWEN_4B: "a", QWEN_8B: "b", MISTRAL: "c"}[table]
    assert trial.models.clip == f"{letter}.safetensors"
    assert trial.models.vae == "flux2-vae.safetensors"
    said = "\n".join(trial.notes)
    assert f"so {settings[0]} steps, guidance {settings[1]:g}" in said
    assert ("with a guidance input" in said) == (variant == "dev")


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_older_folders_and_sub_folders(tmp_path, prefix):
    transformer(tmp_path / "unet/flux/two/klein.safetensors", prefix=prefix)
    encoder(tmp_path / "clip/qwen/4b.safetensors")
    vae(tmp_path / "vae/flux/vae.safetensors")
    found = survey(tmp_path)
    trial = choose.choose(found, Named(), CPU)
    assert trial.models.unet == os.path.join("flux", "two", "klein.safetensors")
    assert trial.models.clip == os.path.join("qwen", "4b.safetensors")
    folders = choose.roots(found)
    assert folders["diffusion_models"] == [tmp_path / "unet"]
    assert folders["text_encoders"] == [tmp_path / "clip"]


def test_files_in_no_folder_of_comfyuis(tmp_path):
    transformer(tmp_path / "klein.safetensors")
    encoder(tmp_path / "qwen.safetensors")
    vae(tmp_path / "vae.safetensors")
    lora(tmp_path / "ink.safetensors")
    found = survey(tmp_path)
    trial = choose.choose(found, Named(), CPU)
    assert [trial.models.unet, trial.models.clip, trial.models.vae, trial.loras[0].name] == [
        "klein.safetensors",
        "qwen.safetensors",
        "vae.safetensors",
        "ink.safetensors",
    ]
    kinds = ("diffusion_models", "text_encoders", "vae", "loras")
    assert {kind: choose.roots(found)[kind] for kind in kinds} == dict.fromkeys(kinds, [tmp_path])


def test_a_whole_comfyui_is_taken_for_its_models(klein):
    (klein / "ComfyUI").mkdir()
    os.rename(klein / "vae", klein / "ComfyUI" / "x")
    (klein / "ComfyUI" / "models").mkdir()
    os.rename(klein / "ComfyUI" / "x", klein / "ComfyUI" / "models" / "vae")
    assert models_folder(klein / "ComfyUI") == klein / "ComfyUI" / "models"
    assert models_folder(klein) == klein


def test_the_quickest_complete_model_is_taken_and_that_is_said(klein):
    transformer(klein / "diffusion_models/flux2-dev.safetensors", "dev")
    transformer(klein / "diffusion_models/flux-2-klein-base-4b.safetensors")
    transformer(klein / "diffusion_models/flux-2-klein-4b-fp8.safetensors", dtype="F8_E4M3")
    trial = chosen(klein)
    assert trial.models.unet == "flux-2-klein-4b.safetensors"
    assert "the quickest here of 4 that are FLUX.2 (--unet NAME takes another)" in trial.notes[0]
    assert chosen(klein, CUDA).models.unet == "flux-2-klein-4b-fp8.safetensors"
    assert chosen(klein, unet="flux-2-klein-base-4b.safetensors").steps == 20


def test_an_incomplete_model_is_passed_over(klein):
    transformer(klein / "diffusion_models/klein-9b.safetensors", "klein-9b", "F8_E4M3")
    assert chosen(klein, CUDA).models.unet == "flux-2-klein-4b.safetensors"


def test_the_two_newest_loras_that_fit_are_taken(klein):
    lora(klein / "loras/old.safetensors", age=300)
    lora(klein / "loras/sub/ink.safetensors", age=20, trigger_word="inkwash")
    lora(klein / "loras/oil.safetensors", age=10)
    lora(klein / "loras/klein-4b-turbo-8steps.safetensors", age=0)
    lora(klein / "loras/for-dev.safetensors", "dev")
    lora(klein / "loras/for-flux1.safetensors", modelspec="x", ss_base_model_version="flux1")
    write(klein / "loras/sdxl.safetensors", {"lora_unet_input_blocks_1.lora_up.weight": (9, 4)})
    (klein / "loras/broken.safetensors").write_bytes(b"<html>")
    trial = chosen(klein)
    ink = os.path.join("sub", "ink.safetensors")
    assert [one.name for one in trial.loras] == ["oil.safetensors", ink]
    assert [one.label for one in trial.loras] == ["oil", "ink"]
    said = "\n".join(trial.notes)
    assert "the newest of 3 that fit" in said and "number of steps are left out" in said
    assert trial.prompt.endswith(", inkwash") and "trigger words: inkwash" in said


def test_no_lora_is_said(klein):
    assert chosen(klein).loras == ()
    assert "no loras folder" in chosen(klein).notes[-1]
    lora(klein / "loras/for-dev.safetensors", "dev")
    assert "of 1 LoRA files none is for this model" in chosen(klein).notes[-1]


def test_named_loras_are_taken_as_they_are(klein):
    lora(klein / "loras/sub/for-dev.safetensors", "dev")
    trial = chosen(klein, loras=(("for-dev.safetensors", 0.5),))
    name = os.path.join("sub", "for-dev.safetensors")
    assert [(one.name, one.scale) for one in trial.loras] == [(name, 0.5)]
    with pytest.raises(LookupError, match="--lora: there is no ink"):
        chosen(klein, loras=(("ink.safetensors", 1.0),))


def test_what_is_missing_is_named_with_its_link(klein):
    os.unlink(klein / "text_encoders/qwen_3_4b.safetensors")
    encoder(klein / "text_encoders/qwen_3_8b.safetensors", QWEN_8B)
    os.unlink(klein / "vae/flux2-vae.safetensors")
    with pytest.raises(LookupError) as error:
        chosen(klein)
    text = str(error.value)
    assert "FLUX.2 klein 4B, distilled is there (flux-2-klein-4b.safetensors)" in text
    assert "no text encoder for it and no FLUX.2 VAE" in text
    assert "text_encoders/qwen_3_4b.safetensors" in text and "vae/flux2-vae.safetensors" in text
    assert text.count("https://huggingface.co/") == 2
    assert "qwen_3_8b.safetensors, a text encoder of width 4096" in text


def test_no_flux2_at_all(tmp_path):
    write(tmp_path / "unet/sd.safetensors", {"input_blocks.0.0.weight": (320, 4, 3, 3)})
    (tmp_path / "unet/flux2-klein-Q4.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(LookupError) as error:
        chosen(tmp_path)
    text = str(error.value)
    assert text.startswith("--models: there is no FLUX.2 model in that folder.")
    assert "diffusion_models/flux-2-klein-4b.safetensors" in text and "--real" in text
    assert "sd.safetensors, which is not FLUX.2" in text
    assert "flux2-klein-Q4.gguf, a GGUF file: ComfyUI's own loader cannot open it" in text


def test_a_named_file_that_cannot_be_used(klein):
    (klein / "unet").mkdir()
    (klein / "unet/klein.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(LookupError, match="--unet: a GGUF file"):
        chosen(klein, unet="klein.gguf")
    write(klein / "unet/flux1.safetensors", {"double_blocks.0.img_mod.lin.weight": (9, 3)})
    with pytest.raises(LookupError, match=r"--unet: .*those of FLUX\.1"):
        chosen(klein, unet="flux1.safetensors")
    with pytest.raises(LookupError, match="there is no other"):
        chosen(klein, unet="other")


def test_a_named_encoder_is_trusted_and_said(klein):
    encoder(klein / "text_encoders/mine.safetensors", (99, 17))
    trial = chosen(klein, clip="mine.safetensors")
    assert trial.models.clip == "mine.safetensors"
    assert "as you said, though its width of 17" in "\n".join(trial.notes)


def test_a_link_in_a_circle_ends(klein):
    (klein / "vae" / "again").symlink_to(klein, target_is_directory=True)
    assert chosen(klein).models.vae == "flux2-vae.safetensors"


def test_what_is_asked_for_wins(klein):
    options = demo.parse(["--models", str(klein), "--steps", "7", "--prompt", "a heron"])
    trial = demo.settled(chosen(klein), options)
    assert (trial.steps, trial.prompt, trial.guidance) == (7, "a heron", 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "/nowhere"], "there is no folder /nowhere"),
        (["--lora", "a:much"], "must be a number: a:much"),
        (["--size", "huge"], "must be one of square_hd, square,"),
        (["--size", "32"], "or the side of a square in pixels, 64 to 2048"),
        (["--lora", "a", "--lora", "b", "--lora", "c", "--lora", "d"], "three are the most"),
    ],
)
def test_wrong_options(arguments, said, capsys):
    with pytest.raises(SystemExit):
        demo.parse(arguments)
    assert said in capsys.readouterr().err
