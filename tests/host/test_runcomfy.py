"""The RunComfy node in a real ComfyUI, against the bundled stand-in: paid once, and quiet.

The server is one of its own, for its environment carries the token; it needs no models.
"""

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from loopback import until
from PIL import Image
from standin_faults import Standin
from standin_server import Timing

from host import models
from host import server as servers
from host.client import Client, Prompt, PromptRefused
from host.server import Server

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-the-host-tests-7d31"  # looked for everywhere below
PROMPT_WORDS = "a heron in the morning mist"
NODE = "Flux2EditRunComfy"
QUICK = Timing(0.1, 0.3)


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    with Standin(timing=QUICK, picture_side=32) as server:
        yield server


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("runcomfy") / "base"
    for folder in ("custom_nodes", "output", "input", "models/loras"):
        (target / folder).mkdir(parents=True)
    models.link_nodes(ROOT, target, "flux2-lora-edit")
    return target


@pytest.fixture(scope="module")
def server(comfyui: Path, base: Path, standin: Standin) -> Iterator[Server]:
    environment = {
        "RUNCOMFY_API_BASE": standin.origin,
        "RUNCOMFY_API_TOKEN": TOKEN,
        "HOME": str(base),  # no login of the machine's own user comes in
        "HF_HUB_OFFLINE": "1",  # nobody is asked whether the LoRAs of these tests are there
    }
    with servers.start(comfyui, base, environment=environment) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as page:
        yield page


def emptied(standin: Standin, token: str):
    """A token's account without jobs, counts and faults."""
    account = standin.state.account(token)
    account.jobs.clear()
    account.counts.clear()
    account.fault, account.timing, account.struck = "", QUICK, 0
    return account


@pytest.fixture
def account(standin: Standin):
    """The token's account, emptied; back to health afterwards."""
    account = emptied(standin, TOKEN)
    yield account
    account.fault, account.timing = "", QUICK


def graph(seed: int, node: str = "1", **inputs: object) -> Prompt:
    """The node, its pictures saved and its texts shown."""
    all_inputs = {
        "prompt": PROMPT_WORDS,
        "mode": "auto",
        "image_size": "auto",
        "guidance_scale": 2.5,
        "num_inference_steps": 28,
        "seed": seed,
        "output_format": "png",
        "batch_count": 1,
        **inputs,
    }
    return {
        node: {"class_type": NODE, "inputs": all_inputs},
        f"{node}s": {
            "class_type": "SaveImage",
            "inputs": {"images": [node, 0], "filename_prefix": "remote"},
        },
        f"{node}r": {"class_type": "PreviewAny", "inputs": {"source": [node, 2]}},
        f"{node}i": {"class_type": "PreviewAny", "inputs": {"source": [node, 3]}},
    }


def info_of(result, node: str = "1") -> dict:
    return json.loads(result.outputs[f"{node}i"]["text"][0])


def picture(client: Client, image: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(client.view(image))))


def upload(client: Client, name: str, size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, (30, 90, 160)).save(buffer, "PNG")
    return client.upload_image(name, buffer.getvalue())


def test_text_to_image_is_delivered_and_cached(client: Client, account, standin: Standin) -> None:
    result = client.run(graph(11)).check()
    (image,) = result.images("1s")
    expected = standin._picture(account.jobs[0])
    assert np.array_equal(picture(client, image), np.asarray(Image.open(io.BytesIO(expected))))
    assert result.outputs["1r"]["text"] == [account.jobs[0].id]
    info = info_of(result)
    assert info["model"] == "blackforestlabs/flux-2/lora" and info["cost_usd"] == 0.021
    assert info["requests"][0]["seed"] == 11 and info["image_size"] == "landscape_4_3"
    assert account.jobs[0].payload["loras"] == []
    assert len(result.outputs["1"]["images"]) == 1, "the node previews its picture"
    again = client.run(graph(11)).check()
    assert "1" in again.cached and account.submissions == 1, "the same inputs are not billed twice"
    client.run(graph(12)).check()
    assert account.submissions == 2


def test_the_queue_and_the_time_are_told(client: Client, account) -> None:
    account.timing = Timing(0.9, 0.9)
    texts = [text for _, text in client.run(graph(21)).check().texts]
    assert any(text.startswith("In queue (position 1)") for text in texts), texts
    assert any(text.startswith("Running") for text in texts), texts
    assert any("$0.021 per image" in text for text in texts), texts
    assert texts[-1].startswith("1 of 1 delivered") and "cost $0.021" in texts[-1]
    assert not any("%" in text for text in texts)


def test_edit_with_pictures_addresses_and_loras(client: Client, account) -> None:
    wide, small = upload(client, "wide.png", (160, 90)), upload(client, "small.png", (20, 30))
    prompt = graph(
        31,
        image_1=["w", 0],
        image_3=["s", 0],
        image_urls="https://example.com/third.png",
        lora_stack=["l", 0],
        batch_count=2,
    )
    prompt["w"] = {"class_type": "LoadImage", "inputs": {"image": wide}}
    prompt["s"] = {"class_type": "LoadImage", "inputs": {"image": small}}
    prompt["l"] = {
        "class_type": "Flux2EditLoraStack",
        "inputs": {
            "lora_1": "hugging face",
            "lora_1.repo": "owner/repo@v1:a b.safetensors",
            "lora_1.scale": 0.5,
            "lora_1.enabled": True,
            "lora_2": "url",
            "lora_2.url": "https://huggingface.co/owner/two/blob/main/l.safetensors",
            "lora_2.scale": 1.0,
            "lora_2.enabled": True,
            "lora_3": "none",
        },
    }
    result = client.run(prompt).check()
    assert [job.payload["seed"] for job in account.jobs] == [31, 32]
    payload = account.jobs[0].payload
    assert [u[:22] for u in payload["image_urls"]] == [
        "data:image/png;base64,", "data:image/png;base64,", "https://example.com/th",
    ]  # fmt: skip
    assert payload["image_size"] == "landscape_16_9"
    assert payload["loras"] == [
        {"path": "https://huggingface.co/owner/repo/resolve/v1/a%20b.safetensors", "scale": 0.5},
        {"path": "https://huggingface.co/owner/two/resolve/main/l.safetensors", "scale": 1.0},
    ]
    assert len(result.images("1s")) == 2
    info = info_of(result)
    assert info["model"].endswith("/edit") and info["cost_usd"] == 0.042
    assert any('image_3 is "image 2"' in notice for notice in info["notices"])


def test_what_cannot_work_is_said_before_it_is_paid(client: Client, account, base: Path) -> None:
    (base / "models" / "loras" / "mine.safetensors").write_bytes(b"x")
    prompt = graph(41, lora_stack=["l", 0])
    prompt["l"] = {
        "class_type": "Flux2EditLoraStack",
        "inputs": {
            "lora_1": "none",
            "lora_2": "installed",
            "lora_2.file": "mine.safetensors",
            "lora_2.scale": 1.0,
            "lora_2.enabled": True,
            "lora_3": "none",
        },
    }
    result = client.run(prompt)
    assert result.status == "error"
    assert "LoRA slot 2 is a file on this machine" in result.error.message
    assert result.error.message.endswith("mine.safetensors")
    with pytest.raises(PromptRefused):
        client.run(graph(42, num_inference_steps=51))
    assert "prompt is empty" in client.run(graph(43, prompt=" ")).error.message
    assert "no picture to edit" in client.run(graph(44, mode="edit")).error.message
    assert account.submissions == 0


def test_a_drawn_seed_is_told_and_holds_until_something_changes(client: Client, account) -> None:
    result = client.run(graph(-1)).check()
    drawn = account.jobs[0].payload["seed"]
    assert f"seed -1 drew {drawn}. Run again shows this very picture" in result.texts[-1][1]
    assert info_of(result)["requests"][0]["seed"] == drawn
    again = client.run(graph(-1)).check()
    assert "1" in again.cached and account.submissions == 1, "as the node says"
    client.run(graph(-1, prompt=PROMPT_WORDS + " again")).check()
    assert account.submissions == 2 and account.jobs[1].payload["seed"] != drawn


def test_seeds_of_other_nodes_and_pages(client: Client, account) -> None:
    """64-bit ones by a link, and the edit page's null, which headless users send as it is."""
    prompt = graph(["p", 0])
    prompt["p"] = {"class_type": "PrimitiveInt", "inputs": {"value": 2**53 - 2}}
    result = client.run(prompt).check()
    assert account.jobs[0].payload["seed"] == 2**31 - 2
    assert "was sent as 2147483646" in " ".join(info_of(result)["notices"])
    for typed, said in ((2**31, "bigger than max"), (None, "seed"), (-2, "smaller than min")):
        with pytest.raises(PromptRefused, match=said):
            client.run(graph(typed))
    assert account.submissions == 1


def test_a_signed_address_of_a_picture_is_not_sent(client: Client, account) -> None:
    signed = "https://files.example.com/a.png?X-Amz-Signature=abcdef0123456789"
    result = client.run(graph(43, image_urls=signed))
    assert "image_urls, address 1: The link to files.example.com" in result.error.message
    assert "SEND_SIGNED_LINKS=1" in result.error.message and "abcdef" not in result.error.message
    assert account.submissions == 0


def test_four_nodes_side_by_side(client: Client, account) -> None:
    """Four in one graph, and none of their jobs ends before the last is there."""
    account.timing = Timing(600, 600)
    prompt: Prompt = {}
    for number in range(4):
        prompt |= graph(50 + number, f"{number + 1}")
    queued = client.queue(prompt)
    until(lambda: len(account.jobs) == 4)
    for job in account.jobs:
        job.timing = QUICK
    client.wait(queued).check()
    assert len(account.jobs) == 4


def stopped(client: Client, account, prompt: Prompt, jobs: int):
    """The run, interrupted once so many new jobs were asked about; seconds from then to its end."""
    pressed: list[float] = []
    submitted, asked = account.submissions + jobs, account.counts.get("status", 0) + 2 * jobs

    def press() -> None:
        until(lambda: account.submissions >= submitted and account.counts.get("status", 0) >= asked)
        pressed.append(time.monotonic())
        client.interrupt()

    threading.Thread(target=press, daemon=True).start()
    result = client.run(prompt)
    return result, time.monotonic() - pressed[0]


def test_stop_while_queued_and_while_running(client: Client, account, server: Server) -> None:
    account.timing = Timing(60, 60)
    result, seconds = stopped(client, account, graph(61), 1)
    assert result.status == "interrupted" and seconds < 30
    assert account.counts["cancel"] == 1 and account.jobs[0].cancelled
    assert "still queued is cancelled" in result.texts[-1][1]
    account.timing = Timing(0, 60)
    result, seconds = stopped(client, account, graph(62), 1)
    assert result.status == "interrupted" and seconds < 30
    assert account.counts["cancel"] == 1 and "will finish and bill" in result.texts[-1][1]
    assert account.jobs[1].id in server.log(), "the id is in the log too"


def test_stop_with_four_nodes_at_once(client: Client, account) -> None:
    account.timing = Timing(60, 60)
    prompt: Prompt = {}
    for number in range(4):
        prompt |= graph(70 + number, f"{number + 1}")
    result, seconds = stopped(client, account, prompt, 4)
    assert result.status == "interrupted" and seconds < 30
    until(lambda: account.counts.get("cancel", 0) >= 4 and all(j.cancelled for j in account.jobs))
    assert account.counts["cancel"] == 4 and all(job.cancelled for job in account.jobs)
    account.timing = QUICK
    client.run(graph(79)).check()


def test_a_siblings_failure_settles_the_job(client: Client, account) -> None:
    account.timing = Timing(60, 60)
    prompt = graph(81) | graph(82, "2", prompt=" ")
    began = time.monotonic()
    result = client.run(prompt)
    assert result.status == "error" and "prompt is empty" in result.error.message
    assert time.monotonic() - began < 60, "a job takes two minutes"
    until(lambda: all(job.cancelled for job in account.jobs))
    assert account.submissions <= 1 and all(job.cancelled for job in account.jobs)
    account.timing = QUICK
    client.run(graph(83)).check()


def test_a_lost_job_is_shown_and_fetched_for_nothing(client: Client, account) -> None:
    account.timing = Timing(0, 2.0)
    result, _ = stopped(client, account, graph(91), 1)
    assert result.status == "interrupted"
    lost = account.jobs[0].id
    listed = client.get("/flux2-lora-edit/open-requests")["open_requests"]
    assert lost in [entry["request_id"] for entry in listed]
    other = client.run(graph(92)).check()
    assert lost in [entry["request_id"] for entry in info_of(other)["open_requests"]]
    assert all("requests are open" in text for _, text in other.texts)
    before = dict(account.counts)
    result = client.run(graph(93, resume_request_id="open")).check()
    assert lost in result.outputs["1r"]["text"][0]
    assert account.counts["submit"] == before["submit"]
    listed = client.get("/flux2-lora-edit/open-requests")["open_requests"]
    assert lost not in [entry["request_id"] for entry in listed]
    by_id = client.run(graph(94, resume_request_id=f" {lost} ")).check()
    assert by_id.outputs["1r"]["text"] == [lost]
    odd = client.run(graph(95, resume_request_id="a/../b")).error.message
    assert "does not know" in odd and odd.endswith("a/../b"), "asked for, as an id and as no path"


def test_pictures_of_different_sizes_are_all_delivered(client: Client, account, standin) -> None:
    account.timing = QUICK
    sizes = iter([(16, 24), (16, 24), (40, 8)])
    from standin_server.pictures import draw

    made = {}
    original = standin._picture

    def odd(job):
        if job.id not in made:
            made[job.id] = draw(*next(sizes), 1, job.id)
        return made[job.id]

    standin._picture = odd
    try:
        result = client.run(graph(101, batch_count=3)).check()
    finally:
        standin._picture = original
    shapes = sorted(picture(client, image).shape for image in result.images("1s"))
    assert len(shapes) == 3 and sorted(set(shapes)) == [(8, 40, 3), (24, 16, 3)]


def test_the_settings_page_routes(server: Server, client: Client, base: Path) -> None:
    path, secret = "/flux2-lora-edit/token", "saved-token-0123456789"
    own = {"X-Flux2-Lora-Edit": "1"}

    def call(method: str, where: str = path, **options: object) -> requests.Response:
        return requests.request(method, server.url + where, timeout=60, **options)

    status = client.get(path)
    expected = {"set": True, "source": "RUNCOMFY_API_TOKEN", "hint": "…7d31", "stored": False}
    assert status == expected | {"shared": False}
    foreign = [
        {},
        {**own, "Origin": "https://evil.example"},
        {**own, "Origin": "null"},
        {**own, "Sec-Fetch-Site": "cross-site"},
        {**own, "Sec-Fetch-Site": "same-site"},
    ]
    for headers in foreign:
        assert call("PUT", json={"token": secret}, headers=headers).status_code == 403, headers
        assert call("DELETE", json={}, headers=headers).status_code == 403, headers
    simple = {**own, "Content-Type": "text/plain"}
    assert call("PUT", data=json.dumps({"token": secret}), headers=simple).status_code == 403
    assert call("POST", json={"token": secret}, headers=own).status_code == 405
    asked = call("OPTIONS", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in asked.headers
    file = base / "user" / "__flux2_lora_edit" / "runcomfy.json"
    assert not file.exists()
    assert call("PUT", json={"token": " "}, headers=own).status_code == 400
    bad = call("PUT", json={"token": "a b"}, headers=own)
    assert bad.status_code == 400 and "a b" not in bad.text

    saved = call("PUT", f"/api{path}", json={"token": secret}, headers=own)
    assert saved.status_code == 200 and secret not in saved.text
    assert saved.json()["stored"] is True
    assert saved.json()["source"] == "RUNCOMFY_API_TOKEN", "the variable goes before the file"
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    for where in (
        "/settings",
        "/userdata?dir=__flux2_lora_edit",
        "/userdata/..%2F__flux2_lora_edit%2Fruncomfy.json",
        "/userdata/__flux2_lora_edit%2Fruncomfy.json",
    ):
        assert secret not in call("GET", where).text, where
    cleared = call("DELETE", json={}, headers=own)
    assert cleared.json()["stored"] is False and not file.exists()


@pytest.mark.browser
def test_the_settings_page_itself(server: Server, client: Client, account, base: Path) -> None:
    """In a real browser: the token goes to the file and nowhere else; open requests are shown."""
    from browser.chromium import NoChromium, chromium
    from browser.comfy_page import ComfyPage

    account.timing = Timing(0, 60)
    stopped(client, account, graph(105), 1)
    lost, secret = account.jobs[0].id, "typed-token-0123456789"
    file = base / "user" / "__flux2_lora_edit" / "runcomfy.json"
    try:
        with chromium() as browser:
            visit = ComfyPage(browser, server.url).open()
            page = visit.page
            page.keyboard.press("Control+,")
            page.get_by_text("FLUX.2 LoRA Edit").first.click()
            token = page.locator("#flux2-lora-edit-token")
            token.get_by_text("Set (…7d31), from the variable RUNCOMFY_API_TOKEN.").wait_for()
            token.locator("input").fill(secret)
            token.get_by_text("Save").click()
            token.get_by_text("It goes before the saved one.").wait_for()
            assert json.loads(file.read_text()) == {"token": secret}
            assert token.locator("input").input_value() == "" and secret not in page.content()
            open_ones = page.locator("#flux2-lora-edit-open-requests")
            row = open_ones.get_by_role("listitem").filter(has_text=lost)
            row.wait_for()
            row.get_by_text("Dismiss").click()
            row.wait_for(state="detached")
            token.get_by_text("Clear").click()
            token.locator("button:disabled").wait_for()
            assert not file.exists()
            stored = json.dumps(client.get("/settings"))
            assert secret not in stored and "Flux2LoraEdit" not in stored
            visit.close()
    except NoChromium as error:
        pytest.skip(str(error))
    listed = client.get("/flux2-lora-edit/open-requests")["open_requests"]
    assert lost not in [entry["request_id"] for entry in listed]


def test_the_token_is_nowhere_to_be_found(
    client: Client, account, server: Server, base: Path
) -> None:
    """Workflow, history, pictures, journal, log, errors, settings, and every file of the server."""
    workflow = {"workflow": {"nodes": [], "note": "as the page sends it"}}
    result = client.run(graph(111), extra_data={"extra_pnginfo": workflow}).check()
    account.fault = "submit_400_echoes_secrets"
    failed = client.run(graph(112))
    account.fault = "result_failed_echoes_secrets"
    account.struck = 0
    failed_later = client.run(graph(113))
    assert "***" in failed.error.message and "***" in failed_later.error.message
    shown = [image for node in result.outputs.values() for image in node.get("images", [])]
    assert len(shown) == 2, "the saved one and the preview"
    texts = {
        "history": json.dumps(client.get("/history")),
        "schema": json.dumps(client.get(f"/object_info/{NODE}")),
        "settings": json.dumps(client.get("/settings")),
        "log": server.log(),
        "logs route": json.dumps(client.get("/internal/logs/raw")),
        "errors": repr(failed) + repr(failed_later),
        "token route": json.dumps(client.get("/flux2-lora-edit/token")),
        "pictures": "".join(client.view(image).decode("latin-1") for image in shown),
    }
    files = {
        str(path.relative_to(base)): path.read_bytes().decode("latin-1")
        for folder in ("user", "output", "temp", "input")
        for path in (base / folder).rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }
    assert any(name.endswith("requests.jsonl") for name in files), list(files)
    for name, text in {**texts, **files}.items():
        assert TOKEN not in text, name
        assert "X-Signature=topsecret" not in text, name
    for name in ("log", "logs route"):
        assert PROMPT_WORDS not in texts[name], name
    journal = next(text for name, text in files.items() if name.endswith("requests.jsonl"))
    assert PROMPT_WORDS not in journal


def test_no_leak_reached_the_stand_in(standin: Standin) -> None:
    assert standin.state.leaks == []


def test_it_is_not_there_with_disable_api_nodes(
    comfyui: Path, tmp_path: Path, standin: Standin
) -> None:
    base = tmp_path / "base"
    (base / "custom_nodes").mkdir(parents=True)
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    environment = {"RUNCOMFY_API_BASE": standin.origin, "RUNCOMFY_API_TOKEN": TOKEN}
    arguments = ("--disable-api-nodes",)
    with servers.start(comfyui, base, environment=environment, arguments=arguments) as running:
        with Client(running.url) as page:
            with pytest.raises(KeyError):
                page.object_info(NODE)
            assert page.object_info("Flux2EditImageSize")
            gone = requests.get(f"{running.url}/flux2-lora-edit/token", timeout=60)
            assert gone.status_code == 404
        # Old hosts fail to load extras of their own, with a traceback that is not ours.
        assert "flux2-lora-edit/nodes" not in running.log()
