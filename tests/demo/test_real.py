"""``--real`` against a loopback hub with tiny files under the real names: asked, fetched, kept."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from klein_hub import CPU, Disk, World, klein_hub
from loopback import Authority, Exchange, ranged, until
from paper_models import encoder, lora, transformer, vae

from host.commands import demo
from host.demo import fetching, offer, real
from host.demo.machine import Device
from host.demo.offer import Declined

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """Small files of klein's kind, by the name of the real one whose place each takes."""
    folder = tmp_path_factory.mktemp("contents")
    made = {
        "flux-2-klein-4b.safetensors": transformer(
            folder / "a.safetensors", sizes=(256, 768, 2, 3)
        ),
        "qwen_3_4b.safetensors": encoder(folder / "b.safetensors", (500, 256)),
        "flux2-vae.safetensors": vae(folder / "c.safetensors"),
        "pixelart_lora.safetensors": lora(folder / "d.safetensors", width=256),
    }
    return {name: path.read_bytes() for name, path in made.items()}


@pytest.fixture
def world(tmp_path, authority, contents) -> Iterator[World]:
    with klein_hub(tmp_path, authority, contents) as made:
        yield made


def test_the_real_table():
    total = sum(file.size for file in offer.KLEIN_4B)
    assert f"{total / 1e9:.1f} GB" == "16.5 GB", "what --help says"
    for file in offer.KLEIN_4B:
        assert len(file.revision) == 40 and len(file.sha256) == 64
        assert file.licence == "Apache-2.0"
    kinds = [file.path.split("/")[-2] for file in offer.KLEIN_4B[:3]]
    assert kinds == ["diffusion_models", "text_encoders", "vae"]


def test_it_is_said_and_asked_before_the_first_byte(world, capsys):
    asked = []

    def person(question: str) -> str:
        asked.append((question, capsys.readouterr().out, world.hub.asked()))
        return "y"

    scene = world.lay_out(yes=False, ask_person=person)
    ((question, said, requests),) = asked
    assert question.endswith("[y/N] ") and requests == []
    for file in offer.KLEIN_4B:
        assert file.name in said and file.repo in said
    assert said.count("Apache-2.0") == 4 and " GB   into " in said
    assert said.count("from https://huggingface.co/") == 2
    assert "minutes for two edits" in said and "no CUDA or MPS found" in said
    trial = scene.trial
    assert (trial.steps, trial.guidance, trial.negative) == (4, 1.0, False)
    assert trial.models.unet == "flux-2-klein-4b.safetensors"
    assert trial.models.clip == "qwen_3_4b.safetensors"
    assert trial.models.vae == "flux2-vae.safetensors"
    assert [one.name for one in trial.loras] == ["pixelart_lora.safetensors"]
    assert trial.prompt.endswith(offer.TRIGGER)
    paths = json.loads((world.base / "model_paths.yaml").read_text())["demo"]
    for kind in ("diffusion_models", "text_encoders", "vae", "loras"):
        assert Path(paths[kind]).is_relative_to(world.root)
    assert "sha256 as announced" in capsys.readouterr().out


def test_a_second_run_fetches_nothing_and_asks_nobody(world, capsys):
    world.lay_out()
    world.hub.forget()
    capsys.readouterr()
    world.lay_out(yes=False)
    assert world.hub.asked() == []
    assert "here already" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["", "n", "no", "what?"])
def test_a_no_ends_it(world, answer):
    with pytest.raises(Declined, match="nothing was fetched"):
        world.lay_out(yes=False, ask_person=lambda question: answer)
    assert world.hub.asked() == []


def test_nobody_to_ask(world):
    def nobody(question: str) -> str:
        raise EOFError

    with pytest.raises(Declined, match="--yes"):
        world.lay_out(yes=False, ask_person=nobody)
    assert world.hub.asked() == []


def test_a_disk_that_is_too_small(world):
    need = sum(file.size for file in world.files)
    full = Disk(int(need + offer.SPARE - 1))
    with pytest.raises(RuntimeError, match="of the disk are free.*FLUX2_LORA_EDIT_CACHE"):
        world.lay_out(disk_usage=lambda folder: full)
    assert world.hub.asked() == []
    enough = Disk(int(need + offer.SPARE))
    assert world.lay_out(disk_usage=lambda folder: enough).trial.steps == 4


def test_a_memory_that_is_too_small(world):
    with pytest.raises(RuntimeError, match="8 GB of memory"):
        world.lay_out(look=lambda: CPU._replace(memory=8 * 10**9))
    assert world.hub.asked() == []


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (CPU._replace(memory=14 * 10**9), "tight: with 20 GB it would not swap"),
        (Device("cuda", "the GPU (X, 8 GB)", 32 * 10**9, 8 * 10**9), "it will be slower"),
        (Device("mps", "Apple's GPU (MPS)", 32 * 10**9), "nobody has timed yours yet"),
    ],
)
def test_what_the_machine_is_told_to_be(world, device, said, capsys):
    scene = world.lay_out(look=lambda: device)
    assert ("--bf16-unet" in scene.arguments) == (device.kind == "cpu"), "memory for nothing"
    assert said in capsys.readouterr().out
    assert scene.gpu == (device.kind != "cpu")
    assert scene.trial.size == ("square_hd" if device.kind == "cuda" else "square")


def test_a_slow_machine_gets_its_time(world, monkeypatch):
    monkeypatch.setattr(offer, "minutes", lambda device: 60.0)
    assert world.lay_out().patience == 7200.0
    monkeypatch.setattr(offer, "minutes", lambda device: 0.0)
    assert world.lay_out().patience == 1800.0


def test_another_file_than_announced_is_refused(world):
    (model, *_) = world.files
    other = bytearray(world.hub.repos[model.repo].commits[model.revision][model.path])
    other[-1] ^= 1
    world.hub.cdn.routes[f"/blobs/{model.sha256}"] = ranged(bytes(other))
    with pytest.raises(RuntimeError, match="flux-2-klein-4b.*sha256 differs") as error:
        world.lay_out()
    assert "Run the same command again" in str(error.value)
    assert not list(world.root.rglob("flux-2-klein-4b.safetensors"))


def test_a_file_that_was_changed_at_its_commit_is_refused(world):
    world.files[3] = dataclasses.replace(world.files[3], sha256="0" * 64)
    with pytest.raises(RuntimeError, match="not the file that this demo was written for"):
        world.lay_out()
    assert not list(world.root.rglob("pixelart_lora.safetensors"))


def test_a_file_that_has_grown_is_refused_before_its_bytes(world):
    world.files[0] = dataclasses.replace(world.files[0], size=world.files[0].size - 1)
    with pytest.raises(RuntimeError, match="could not be fetched"):
        world.lay_out()
    assert world.bytes_sent() == []


def test_no_network(world):
    world.hub.server.close()
    with pytest.raises(RuntimeError) as error:
        world.lay_out()
    text = str(error.value)
    assert "flux-2-klein-4b.safetensors could not be fetched" in text
    assert "Run the same command again" in text and "FLUX2_LORA_EDIT_PROXY" in text


def test_offline_is_said(world):
    env = {**world.access.env, "HF_HUB_OFFLINE": "1"}
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE.*--models DIR"):
        world.lay_out(access=dataclasses.replace(world.access, env=env))
    assert world.hub.asked() == []
    world.lay_out()
    world.lay_out(access=dataclasses.replace(world.access, env=env))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_killed_in_the_middle_it_goes_on_there(world, tmp_path, capsys):
    (model, *_) = world.files
    whole = world.hub.repos[model.repo].commits[model.revision][model.path]
    half = len(whole) // 2

    def stalled(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": len(whole), "ETag": f'"{model.sha256}"'})
        exchange.send(whole[:half])
        exchange.pause(60)

    blob = f"/blobs/{model.sha256}"
    world.hub.cdn.routes[blob] = stalled
    (tmp_path / "ca.pem").write_text(world.authority.pem)
    files = json.dumps([dataclasses.asdict(file) for file in world.files])
    origins = [world.hub.server.origin, world.hub.cdn.origin]
    command = [sys.executable, HERE / "fetch_child.py", tmp_path / "ca.pem", *origins]
    with subprocess.Popen([*map(str, command), str(world.root), files]) as child:
        try:
            until(lambda: fetching.arrived(model, world.root) > half // 2, 120)
        finally:
            child.kill()
    kept = fetching.arrived(model, world.root)
    assert 0 < kept <= half
    del world.hub.cdn.routes[blob]
    world.hub.forget()
    # Room for what is missing and no more: what is here needs none.
    room = Disk(int(sum(file.size for file in world.files) - kept + offer.SPARE))
    world.lay_out(disk_usage=lambda folder: room)
    first = world.hub.cdn.requests[0]
    assert first.path == blob and first.headers["range"] == f"bytes={kept}-"
    assert "goes on at" in capsys.readouterr().out
    (path,) = world.root.rglob(model.name)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--real", "--models", "."], "--models DIR uses yours"),
        (["--real", "--lora", "a"], "--lora goes with --models DIR"),
    ],
)
def test_options_that_exclude_each_other(arguments, said, capsys):
    with pytest.raises(SystemExit):
        demo.parse(arguments)
    assert said in capsys.readouterr().err


def test_a_no_is_a_clean_exit(monkeypatch, tmp_path, capsys):
    def declined(*_: object) -> None:
        raise Declined("nothing was fetched")

    monkeypatch.setattr(real, "lay_out", declined)
    assert demo.run(demo.parse(["--real", "--output", str(tmp_path)])) == 0
    assert "[demo] nothing was fetched" in capsys.readouterr().out
    monkeypatch.setattr(real, "lay_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert demo.run(demo.parse(["--real", "--output", str(tmp_path)])) == 130
    assert "stopped" in capsys.readouterr().err
