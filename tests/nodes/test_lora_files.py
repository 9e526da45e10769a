"""The picker's list over a real socket: what it tells of the files, and what it never tells."""

import json
import os
import sys
import urllib.request
from pathlib import Path

import paper_models
import pytest
from safetensors.torch import save_file

from host import tiny_loras

sys.path.insert(0, str(Path(__file__).resolve().parent))

from test_routes import PREFIX, port, send, serve  # noqa: E402, F401  (fixtures)

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two loras folders and one of models, with a klein 4B and LoRAs of several bases."""
    import folder_paths

    one, two, models = (tmp_path / name for name in ("one", "two", "models"))
    paper_models.lora(
        one / "angles.safetensors", "klein-4b", ss_base_model_version="flux2_klein_4b"
    )
    paper_models.lora(one / "styles" / "ink & [wash].safetensors", "dev", trigger_word="inkwash")
    paper_models.lora(two / "big.safetensors", "klein-9b")
    paper_models.lora(two / "angles.safetensors", "dev")  # which the first folder's hides
    flux1 = tiny_loras.flux1().weights
    save_file({k: v.contiguous() for k, v in flux1.items()}, two / "a flux1.safetensors")
    (one / "bad.safetensors").write_bytes(b"<!doctype html>")
    (one / "angles.png").write_bytes(b"whatever")
    (one / "styles" / "ink & [wash].preview.webp").write_bytes(b"whatever")
    (one / "old.ckpt").write_bytes(b"pickle")
    (one / "angles.txt").write_text("three quarter view, side view\n")
    paper_models.transformer(models / "klein.safetensors", "klein-4b")
    paper_models.transformer(models / "whole.safetensors", "dev", prefix="model.diffusion_model.")
    (models / "klein.gguf").write_bytes(b"GGUF")
    folders = {
        **folder_paths.folder_names_and_paths,
        "loras": ([str(one), str(two)], {".safetensors", ".ckpt"}),
        "diffusion_models": ([str(models)], {".safetensors", ".gguf"}),
        "checkpoints": ([str(models)], {".safetensors"}),
    }
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def ask(port, model="", tag=""):  # noqa: F811
    query = f"?model={model}" if model else ""
    request = urllib.request.Request(  # noqa: S310 (a loopback http address)
        f"http://127.0.0.1:{port}{PREFIX}/lora-files{query}", headers={"If-None-Match": tag}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, answer.headers["ETag"], json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers["ETag"], None


def told(answer):
    return {row["name"]: row for row in answer["files"]}


def test_what_it_tells(folder, port):  # noqa: F811
    status, _, answer = ask(port, "klein.safetensors")
    assert status == 200 and answer["model"] == "FLUX.2 klein 4B"
    assert [(row["name"], row["base"], row["fits"]) for row in answer["files"]] == [
        ("angles.safetensors", "FLUX.2 klein 4B", True),
        ("big.safetensors", "FLUX.2 klein 9B", False),
        ("styles/ink & [wash].safetensors", "FLUX.2 dev", False),
        ("a flux1.safetensors", "FLUX.1", False),
        ("bad.safetensors", "cannot be read", False),
    ]
    rows = told(answer)
    first, ink = rows["angles.safetensors"], rows["styles/ink & [wash].safetensors"]
    assert first["rank"] == 4 and first["trigger_words"] == ["three quarter view", "side view"]
    assert ink["trigger_words"] == ["inkwash"]
    previews = "/experiment/models/preview/loras/0"
    assert first["preview"] == f"{previews}/angles.safetensors"
    assert ink["preview"] == f"{previews}/styles/ink%20%26%20%5Bwash%5D.safetensors"
    assert not rows["big.safetensors"]["preview"]
    assert str(folder) not in json.dumps(answer), "a path of this disk"


@pytest.mark.parametrize(
    "model", ["", "klein.gguf", "gone.safetensors", "../one/angles.safetensors"]
)
def test_without_a_model_that_is_known_no_file_is_right_or_wrong(folder, port, model):  # noqa: F811
    status, _, answer = ask(port, model)
    assert status == 200 and answer["model"] is None
    assert {row["fits"] for row in answer["files"]} == {None}
    assert answer["files"][0]["base"].startswith("FLUX.2"), "those that may fit come first"


def test_a_whole_checkpoint_is_a_model_too(folder, port):  # noqa: F811
    _, _, answer = ask(port, "whole.safetensors")
    assert answer["model"] == "FLUX.2 dev"
    assert told(answer)["styles/ink & [wash].safetensors"]["fits"] is True


def test_it_is_sent_again_when_something_has_changed(folder, port):  # noqa: F811
    _, tag, _ = ask(port, "klein.safetensors")
    assert ask(port, "klein.safetensors", tag) == (304, tag, None)
    assert ask(port, "", tag)[0] == 200, "another model's list"
    path = folder / "one" / "angles.safetensors"
    paper_models.lora(path, "klein-9b")
    status, other, answer = ask(port, "klein.safetensors", tag)
    assert (status, other != tag) == (200, True)
    assert told(answer)["angles.safetensors"]["base"] == "FLUX.2 klein 9B"
    (folder / "one" / "angles.txt").write_text("top view")
    os.utime(folder / "one" / "angles.txt", (5, 5))
    _, _, answer = ask(port, "klein.safetensors", other)
    assert told(answer)["angles.safetensors"]["trigger_words"] == ["top view"]


def test_no_other_site_reads_it(folder, port):  # noqa: F811
    status, text = send(
        ("127.0.0.1", port), "GET", "lora-files", "localhost", Origin="https://evil.example"
    )
    assert status == 403 and "angles" not in text
    for method in ("PUT", "POST", "DELETE"):
        assert send(("127.0.0.1", port), method, "lora-files", "localhost", b"{}")[0] == 405


def test_it_is_there_without_the_hosted_node(monkeypatch):
    import asyncio
    from types import SimpleNamespace

    from aiohttp import web

    from flux2_lora_edit import nodes

    server = SimpleNamespace(routes=web.RouteTableDef())
    monkeypatch.setattr(nodes.host.PromptServer, "instance", server, raising=False)
    monkeypatch.setattr(nodes.host.args, "disable_api_nodes", True)
    asyncio.run(nodes.Flux2LoraEdit().on_load())
    assert [route.path for route in server.routes] == [f"{PREFIX}/lora-files"]
