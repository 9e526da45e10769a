"""``--real`` whole, on a real ComfyUI: small files under klein's names, from a loopback hub."""

import dataclasses
import json
from pathlib import Path

import pytest
from klein_hub import klein_hub
from loopback import Authority
from PIL import Image
from safetensors.torch import save

from host import models, tiny, tiny_loras, tiny_vae
from host.demo import offer, stage
from host.models import copy_photos


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """A klein with random weights, and what belongs to it, by the names of the real files."""
    lora = tiny_loras.diffusers()
    return {
        "flux-2-klein-4b.safetensors": save(tiny.transformer("klein-4b", 256), {"format": "pt"}),
        "qwen_3_4b.safetensors": save(tiny.clip_l(), {"format": "pt"}),
        # The decoder that every supported ComfyUI knows.
        "flux2-vae.safetensors": save(tiny_vae.autoencoder_kl(decoder_width=128), {"format": "pt"}),
        "pixelart_lora.safetensors": save(lora.weights, lora.metadata),
    }


def small_photos(folder: Path) -> None:
    """Every token costs time on a CPU."""
    copy_photos(folder)
    for path in folder.glob("*.png"):
        Image.open(path).resize((128, 128)).save(path)


def test_from_the_question_to_the_sheet(comfyui, tmp_path, contents, capsys, monkeypatch):
    monkeypatch.setattr(models, "copy_photos", small_photos)
    output = tmp_path / "out"
    output.mkdir()
    with klein_hub(tmp_path, Authority(), contents) as world:

        def small(base: Path) -> stage.Scene:
            world.base = base
            scene = world.lay_out(yes=False, ask_person=lambda question: "yes")
            return scene._replace(trial=dataclasses.replace(scene.trial, size=64))

        sheet = stage.perform(small, output)
        said = capsys.readouterr().out
        assert sheet.stat().st_size < 400_000
        with Image.open(sheet) as picture:
            assert picture.width == 1800, "two photographs, the edit, and the edit with the LoRA"
        assert sorted(path.name for path in output.glob("*.png")) == [
            "edit-lora-1_00001_.png",
            "edit_00001_.png",
            "standin_00001_.png",
        ]
        with Image.open(output / "edit-lora-1_00001_.png") as picture:
            nodes = json.loads(picture.text["prompt"]).values()
            graph = {node["class_type"]: node["inputs"] for node in nodes}
            edited = picture.convert("RGB").tobytes()
        with Image.open(output / "edit_00001_.png") as picture:
            assert picture.convert("RGB").tobytes() != edited, "the LoRA changed nothing"
        sampler = graph["Flux2EditSampler"]
        assert (sampler["steps"], sampler["guidance"]) == (4, 1.0) and "negative" not in sampler
        assert graph["Flux2EditConditioning"]["prompt"].endswith(offer.TRIGGER)
        assert graph["UNETLoader"]["unet_name"] == "flux-2-klein-4b.safetensors"
        assert said.index("in all") < said.index("sha256 as announced")

        world.hub.forget()
        world.base = tmp_path / "again"
        again = world.lay_out(yes=False)
        assert world.hub.asked() == [], "the second run fetched something"
        assert "here already" in capsys.readouterr().out
        assert again.trial.models.unet == "flux-2-klein-4b.safetensors"
