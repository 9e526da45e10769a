"""The machinery itself: ComfyUI loads the pack from a dashed folder, runs graphs, and stops."""

import io
import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from host import models, stock
from host import server as servers
from host.client import Client, PromptRefused

pytestmark = pytest.mark.host


def pixels(client, result):
    """The one image of a result as uint8 [height, width, 3]."""
    (image,) = result.images()
    return np.asarray(Image.open(io.BytesIO(client.view(image))))


def test_the_pack_is_loaded_from_a_dashed_folder(server, client):
    assert (server.base / "custom_nodes" / "flux2-lora-edit").is_dir()
    ours = [name for name in client.get("/object_info") if name.startswith("Flux2Edit")]
    assert ours, server.log()[-3000:]
    module = client.object_info(ours[0])["python_module"]
    assert module == "custom_nodes.flux2-lora-edit"
    assert "(IMPORT FAILED)" not in server.log()


def test_the_stock_graph_runs_and_its_settings_matter(client, stock_models):
    images = ("astronaut.png", "chelsea.png")
    plain = stock.edit(stock_models, seed=7)
    client.forget()  # other tests' loaders must not count as cached
    result = client.run(plain.prompt).check()
    picture = pixels(client, result)
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 10, "a flat picture shows no difference"
    assert result.executed == result.display
    assert sorted(result.seconds) == sorted(plain.prompt)
    assert [step.value for step in result.progress if step.maximum == 4] == [1, 2, 3, 4]

    same = client.run(stock.edit(stock_models, seed=7, prefix="again").prompt).check()
    assert np.array_equal(pixels(client, same), picture)
    assert set(same.cached) == set(plain.prompt) - set(same.executed)
    for changed in (
        {"seed": 8},
        {"prompt": "a blue door"},
        {"images": images},
        {"images": images[::-1]},
        {"loras": [("ai-toolkit.safetensors", 1.0)]},
        {"loras": [("kohya.safetensors", 1.0)]},
        {"guidance": 9.0},
    ):
        graph = stock.edit(stock_models, **{"seed": 7, **changed})
        other = pixels(client, client.run(graph.prompt).check())
        difference = np.abs(other.astype(int) - picture.astype(int)).mean()
        assert difference > 0.1, f"{changed} changes nothing"


def test_a_refused_prompt_names_the_node(client, stock_models):
    graph = stock.edit(stock_models)
    loader = next(iter(graph.prompt))
    graph.prompt[loader]["inputs"]["unet_name"] = "absent.safetensors"
    with pytest.raises(PromptRefused, match="absent.safetensors") as caught:
        client.run(graph.prompt)
    assert list(caught.value.node_errors) == [loader]


def test_a_failing_node_is_named(client, stock_models, other_vae):
    wrong = stock.Models(stock_models.unet, stock_models.clip, other_vae)
    result = client.run(stock.edit(wrong).prompt)
    assert result.status == "error"
    assert result.error.node_type == "VAEDecode"
    with pytest.raises(RuntimeError, match="VAEDecode"):
        result.check()


def test_interrupt_stops_sampling_between_two_steps(client, stock_models):
    graph = stock.edit(stock_models, steps=4000, seed=int(time.time()))
    asked = []

    def stop(kind, data):
        if kind != "progress_state" or asked:
            return
        if any(node["max"] == 4000 and node["value"] >= 2 for node in data["nodes"].values()):
            asked.append(kind)
            client.interrupt()

    result = client.run(graph.prompt, on_event=stop)
    assert asked, "sampling was over before it could be stopped"
    assert result.status == "interrupted"
    assert result.progress[-1].value < 4000
    assert client.run(stock.edit(stock_models).prompt).status == "success"


def test_a_client_that_leaves_takes_its_work_along(server, client, stock_models, monkeypatch):
    asked = []

    def late(prompt_id=""):
        """The first comes before the prompt has begun, and the host forgets it then."""
        asked.append(prompt_id)
        if len(asked) > 1:
            interrupt(prompt_id)

    with Client(server.url) as leaving:
        interrupt = leaving.interrupt
        monkeypatch.setattr(leaving, "interrupt", late)
        for seed in (1, 2):
            leaving.queue(stock.edit(stock_models, steps=4000, seed=seed).prompt)
        while not client.get("/queue")["queue_running"]:
            time.sleep(0.01)
    assert len(asked) > 1
    assert client.get("/queue") == {"queue_running": [], "queue_pending": []}
    assert client.run(stock.edit(stock_models, seed=3).prompt).status == "success"


def test_an_upload_is_a_usable_input(client, stock_models):
    buffer = io.BytesIO()
    Image.new("RGB", (70, 50), (200, 30, 30)).save(buffer, "PNG")
    name = client.upload_image("red.png", buffer.getvalue())
    client.run(stock.edit(stock_models, images=[name]).prompt).check()


def test_saved_pictures_carry_their_graph(client, stock_models):
    graph = stock.edit(stock_models, prefix="carrier")
    result = client.run(graph.prompt, extra_data={"extra_pnginfo": {"workflow": {"nodes": []}}})
    content = client.view(result.check().images()[0])
    text = Image.open(io.BytesIO(content)).text
    assert json.loads(text["prompt"]) == graph.prompt
    assert json.loads(text["workflow"]) == {"nodes": []}


def test_a_server_that_cannot_start_says_why(comfyui, tmp_path):
    (tmp_path / "custom_nodes").mkdir()
    with pytest.raises(servers.ServerError, match="unrecognized arguments: --no-such-flag"):
        servers.start(comfyui, tmp_path, arguments=["--no-such-flag"])


def test_link_nodes_takes_the_name_given(tmp_path):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    place = models.link_nodes(folder, tmp_path / "base", "with-dashes")
    assert place == tmp_path / "base" / "custom_nodes" / "with-dashes"
    assert (place / "__init__.py").is_file()
    shutil.rmtree(tmp_path / "base")
    assert folder.is_dir(), "the original stays"
