"""The whole demo on a real ComfyUI: the pictures, their workflows, and what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from host import models
from host.cache import cache_root
from host.demo import stage, trial

ROOT = Path(__file__).resolve().parents[2]
SMALL = 64
# Put before a demo's own start: the packages that the tests need and ComfyUI does not are absent,
# and the photographs small, for every token costs time on a CPU.
BEFORE = """
import os, sys
import PIL.Image
plain = PIL.Image.Image.save
def save(photo, path, *rest, **options):
    small = isinstance(path, os.PathLike) and os.path.basename(os.path.dirname(path)) == "input"
    plain(photo.resize((128, 128)) if small else photo, path, *rest, **options)
PIL.Image.Image.save = save
os.environ.pop("PYTHONPATH")  # for the demo alone: ComfyUI looks for some of them, and may
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"no module named {{name!r}}: ComfyUI does not bring it")
sys.meta_path.insert(0, Absent())
"""


def demo(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """``./scripts/demo`` as a user starts it on his own ComfyUI, with ComfyUI's packages alone."""
    spelled = {"scikit-image": "skimage", "lycoris-lora": "lycoris"}
    lines = (ROOT / "tests/requirements.txt").read_text("utf-8").splitlines()
    names = {spelled.get(line, line.replace("-", "_")) for line in lines if line[0] != "#"}
    assert {"skimage", "peft", "trustme"} <= names
    (folder / "sitecustomize.py").write_text(BEFORE.format(names=names), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder), "FLUX2_LORA_EDIT_READY": "1"}
    command = [sys.executable, str(ROOT / "scripts/demo"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def knows_taef2(host_version) -> bool:
    """Whether the host has FLUX.2's tiny VAE, which the small models are for."""
    return host_version >= (0, 24)


def test_an_older_comfyui_is_told(knows_taef2, tmp_path):
    if knows_taef2:
        pytest.skip("this ComfyUI has taef2")
    process = demo(tmp_path, "--output", str(tmp_path / "out"), "--size", str(SMALL))
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "it came with ComfyUI 0.24" in process.stderr


@pytest.fixture(scope="module")
def ran(comfyui, knows_taef2, tmp_path_factory):
    """(output folder, the sheet, what was printed) of a run as a newcomer's, but small."""
    if not knows_taef2:
        pytest.skip("this ComfyUI has no taef2")
    place = tmp_path_factory.mktemp("newcomer")
    output = place / "pictures"
    process = demo(place, "--output", str(output), "--size", str(SMALL))
    assert process.returncode == 0, process.stdout + process.stderr
    return output, output / stage.SHEET, process.stdout


def prompt_of(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["prompt"])


def test_it_ends_with_one_sheet_of_all_pictures(ran):
    output, sheet, said = ran
    assert said.splitlines()[-1] == f"[demo] all of it on one sheet: {sheet}"
    assert sheet.stat().st_size < 400_000
    names = sorted(path.name for path in output.glob("edit*.png"))
    assert [name.partition("_")[0] for name in names] == [
        "edit-all-loras",
        "edit-lora-1",
        "edit-lora-2",
        "edit",
    ]
    with Image.open(sheet) as picture:
        assert picture.width == 1800 and picture.height > 1200, "two rows of three"
    for name in names:
        assert name in said
    assert (output / "server.log").is_file()


def test_the_pictures_differ_by_the_stack_alone(ran):
    output, _, _ = ran
    on = {}
    graphs = []
    for path in output.glob("edit*.png"):
        graph = prompt_of(path)
        (stack,) = [n for n in graph.values() if n["class_type"] == "Flux2EditLoraStack"]
        (save,) = [n for n in graph.values() if n["class_type"] == "SaveImage"]
        name = save["inputs"].pop("filename_prefix")
        on[name] = [stack["inputs"].pop(f"lora_{number}.enabled") for number in (1, 2)]
        graphs.append({key: (n["class_type"], n["inputs"]) for key, n in graph.items()})
    assert on == {
        "edit": [False, False],
        "edit-lora-1": [True, False],
        "edit-lora-2": [False, True],
        "edit-all-loras": [True, True],
    }
    assert all(graph == graphs[0] for graph in graphs)


def test_each_lora_changes_the_picture(ran):
    pictures = [Image.open(path).convert("RGB") for path in sorted(ran[0].glob("edit*.png"))]
    assert {picture.size for picture in pictures} == {(SMALL, SMALL)}
    for number, one in enumerate(pictures):
        for other in pictures[number + 1 :]:
            assert ImageChops.difference(one, other).getbbox(), "two pictures are the same"


def test_what_it_says_is_for_a_stranger(ran):
    said = ran[2]
    assert trial.EMBEDDED.prompt in said and trial.EMBEDDED.model in said
    assert "queued again, it ran" in said
    assert "nothing is sent, nothing is paid" in said
    assert all(lora.label in said for lora in trial.EMBEDDED.loras)


@pytest.fixture(scope="module")
def folder(comfyui, tmp_path_factory):
    """Somebody's models folder: older names, sub-folders, and LoRAs for other models."""
    folder = tmp_path_factory.mktemp("somebody") / "models"
    for source, place in {
        "diffusion_models/flux2-klein-tiny.safetensors": "unet/flux/klein.safetensors",
        "text_encoders/clip-l-random.safetensors": "clip/words/random.safetensors",
        "vae_approx/taef2_encoder.safetensors": "vae_approx/taef2_encoder.safetensors",
        "vae_approx/taef2_decoder.safetensors": "vae_approx/taef2_decoder.safetensors",
        "loras/diffusers.safetensors": "loras/mine/ink.safetensors",
        "loras/flux1.safetensors": "loras/flux1.safetensors",
        "loras/klein-9b-width.safetensors": "loras/klein-9b.safetensors",
    }.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        made = [one / "models" / source for one in models.every_dir(cache_root())]
        shutil.copyfile(next(path for path in made if path.is_file()), folder / place)
    return folder


def test_somebodys_models_with_comfyuis_packages_alone(knows_taef2, folder, tmp_path):
    if not knows_taef2:
        pytest.skip("this ComfyUI has no taef2")
    before = sorted(folder.rglob("*"))
    ran = demo(tmp_path, "--models", str(folder), "--output", str(tmp_path / "out"), "--size", "64")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = ran.stdout
    assert re.search(r"model +flux/klein\.safetensors: a FLUX\.2 of klein's kind, distilled", said)
    assert "so 4 steps, guidance 1, no negative" in said
    assert re.search(r"text encoder +words/random\.safetensors", said)
    assert re.search(r"LoRA +mine/ink\.safetensors: trained for this model", said)
    assert "flux1.safetensors" not in said
    last = said.splitlines()[-1]
    assert last == f"[demo] all of it on one sheet: {tmp_path / 'out' / 'demo.jpg'}"
    assert (tmp_path / "out" / "demo.jpg").is_file()
    graph = prompt_of(tmp_path / "out" / "edit_00001_.png")
    (sampler,) = [n for n in graph.values() if n["class_type"] == "Flux2EditSampler"]
    assert sampler["inputs"]["steps"] == 4 and sampler["inputs"]["guidance"] == 1.0
    assert "negative" not in sampler["inputs"]
    assert sorted(folder.rglob("*")) == before, "something was written into the models folder"


def test_a_folder_without_a_model_ends_in_words(comfyui, tmp_path):
    (tmp_path / "models" / "vae").mkdir(parents=True)
    ran = demo(tmp_path, "--models", str(tmp_path / "models"), "--output", str(tmp_path / "out"))
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "there is no FLUX.2 model in that folder" in ran.stderr
    assert "https://huggingface.co/Comfy-Org/" in ran.stderr
