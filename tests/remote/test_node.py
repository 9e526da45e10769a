"""The node's own parts: LoRAs as the API names them, pictures in order, outputs, fingerprint."""

import asyncio
import importlib
import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from remote_support import MODEL, new_token, recorded
from standin_server import Standin

from flux2_lora_edit.lora_loader.sources import Access
from flux2_lora_edit.lora_loader.sources.source import HubSource, InstalledSource, UrlSource
from flux2_lora_edit.lora_loader.stack import LoraEntry
from flux2_lora_edit.network.address import PUBLIC_ONLY
from flux2_lora_edit.network.client import HttpClient, Limits
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.remote import plan as planning
from flux2_lora_edit.remote.account import Account, open_account
from flux2_lora_edit.remote.api.answers import Phase, read_result
from flux2_lora_edit.remote.api.models import EDIT, MAX_SEED
from flux2_lora_edit.remote.errors import InvalidInput, JobFailed, Stopped
from flux2_lora_edit.remote.job import Job
from flux2_lora_edit.remote.pictures.media import Picture
from flux2_lora_edit.remote.plan import Plan, RemoteLora, Settings, make_plan
from flux2_lora_edit.remote.report import info_of, progress_text, summary
from flux2_lora_edit.remote.run import resumed


@pytest.fixture
def room(comfy_inprocess: None):  # noqa: ANN201
    """The node room's modules by name; they need a ComfyUI."""
    names = ("host", "remote_loras", "runcomfy")
    return SimpleNamespace(
        **{name: importlib.import_module(f"flux2_lora_edit.nodes.{name}") for name in names}
    )


@pytest.fixture
def home(room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user directory and an environment without any login."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "YOUR_API_TOKEN", "RUNCOMFY_API_BASE",
                 "XDG_CONFIG_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def entry(source, scale: float = 1.0, slot: str = "LoRA slot 1") -> LoraEntry:
    return LoraEntry(source.describe(), scale, scale, source, slot)


def loras_of(room, stack, should_stop=lambda: None, **env: str) -> list[RemoteLora]:
    """On a machine that is offline, and whose operator told the hub's part so."""

    def nobody(*asked, **kind) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    client = HttpClient(limits=Limits(backoff_s=0.01), transport=Transport(resolve=nobody))
    access = Access(env={"HF_HUB_OFFLINE": "1", **env}, client=client, login=lambda: None)
    return room.remote_loras.remote_loras(stack, access=access, should_stop=should_stop)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (HubSource("owner/repo"), "owner/repo"),
        (HubSource("owner/repo", None, "a.safetensors"),
         "https://huggingface.co/owner/repo/resolve/main/a.safetensors"),
        (HubSource("owner/repo", "v1", "d/a b.safetensors"),
         "https://huggingface.co/owner/repo/resolve/v1/d/a%20b.safetensors"),
        (HubSource("owner/repo", "refs/pr/3", "a.safetensors"),
         "https://huggingface.co/owner/repo/resolve/refs%2Fpr%2F3/a.safetensors"),
        (UrlSource("https://example.com/a?v=1"), "https://example.com/a?v=1"),
        (UrlSource("https://huggingface.co/owner/repo/blob/main/a.safetensors"),
         "https://huggingface.co/owner/repo/resolve/main/a.safetensors"),
        (UrlSource("https://huggingface.co/owner/repo"), "owner/repo"),
        (UrlSource("https://civitai.com/models/1?modelVersionId=2&fileId=3"),
         "https://civitai.com/api/download/models/2?fileId=3"),
    ],
)  # fmt: skip
def test_hub_and_web_sources_pass(room, source, path: str) -> None:
    (lora,) = loras_of(room, [entry(source, 0.5)])
    assert (lora.path, lora.scale, lora.slot) == (path, 0.5, "LoRA slot 1")


def test_what_is_not_known_of_a_lora_is_said_before_it_is_paid(room) -> None:
    link = entry(UrlSource("https://example.com/a"), slot="LoRA slot 3")
    made = plan(loras=loras_of(room, [entry(HubSource("a/b")), link]))
    assert made.notices == [
        "LoRA slot 3: whether RunComfy can fetch it is not known (example.com cannot be found; "
        "are you online?)."
    ]
    assert made.payloads[0]["loras"] == [
        {"path": "a/b", "scale": 1.0}, {"path": "https://example.com/a", "scale": 1.0}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("https://example.com/a?token=S3CRET", "looks like a token"),
        ("https://civitai.com/models/1", "could not be asked"),
        ("https://10.0.0.1/a", "non-public"),
    ],
)
def test_what_cannot_work_there_is_refused_with_its_slot(room, link: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        loras_of(room, [entry(HubSource("a/b")), entry(UrlSource(link), slot="LoRA slot 2")])
    text = str(caught.value)
    assert text.startswith("LoRA slot 2: ") and said in text and "S3CRET" not in text


def test_a_stop_ends_the_look(room) -> None:
    def stop() -> None:
        raise Stopped("by the user")

    with pytest.raises(Stopped):
        loras_of(room, [entry(UrlSource("https://example.com/a"))], should_stop=stop)


def test_a_wrong_environment_is_said(room) -> None:
    with pytest.raises(InvalidInput, match="FLUX2_LORA_EDIT_PROXY must look like"):
        loras_of(room, [entry(HubSource("a/b"))], FLUX2_LORA_EDIT_PROXY="http://me:S@:x")


@pytest.fixture
def loras_folder(room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "loras"
    (folder / "sub").mkdir(parents=True)
    for name in ("mine.safetensors", "sub/fetched.safetensors", "web.safetensors"):
        (folder / name).write_bytes(b"x")
    monkeypatch.setattr(
        room.remote_loras, "installed_path", lambda name: folder / name.replace("\\", "/")
    )
    return folder


def test_a_file_of_this_machine_is_refused_with_its_slot(room, loras_folder: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        loras_of(
            room,
            [
                entry(HubSource("a/b")),
                entry(InstalledSource("mine.safetensors"), slot="LoRA slot 2"),
            ],
        )
    text = str(caught.value)
    assert text.startswith("LoRA slot 2 is a file on this machine") and "hugging face" in text
    assert text.endswith("\nmine.safetensors")


@pytest.mark.parametrize("path", ["/workspace/loras/x.safetensors", "loras/x.safetensors"])
def test_a_path_on_their_machines_is_not_sent(room, path: str) -> None:
    """Their page takes one, but nobody here could check it before it is paid."""
    with pytest.raises(InvalidInput, match="path on theirs is not sent") as caught:
        loras_of(room, [(path, 1.0, 1.0)])
    assert str(caught.value).startswith("Entry 1 of lora_stack")


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"repo": "o/r", "file": "f.safetensors", "revision": "abc123"},
         "https://huggingface.co/o/r/resolve/abc123/f.safetensors"),
        ({"repo": "o/r", "file": "f.safetensors"},
         "https://huggingface.co/o/r/resolve/main/f.safetensors"),
        ({"url": "https://example.com/f.safetensors"}, "https://example.com/f.safetensors"),
    ],
)  # fmt: skip
def test_a_fetched_file_goes_by_where_it_came_from(
    room, loras_folder: Path, record: dict, path: str
) -> None:
    (loras_folder / "sub" / "fetched.safetensors.json").write_text(json.dumps(record))
    stack = [("sub/fetched.safetensors", 1.0, 1.0)]  # of another pack: a plain tuple
    assert loras_of(room, stack)[0].path == path


@pytest.mark.parametrize(
    "record",
    ["{", "[]", '{"repo": "../../x", "file": "f.safetensors"}', '{"url": "http://example.com/f"}',
     '{"url": "file:///etc/passwd"}', '{"repo": 5, "file": []}', '{"url": "https://u:p@x/f"}'],
)  # fmt: skip
def test_a_bad_record_is_no_source(room, loras_folder: Path, record: str) -> None:
    (loras_folder / "web.safetensors.json").write_text(record)
    with pytest.raises(InvalidInput, match="file on this machine"):
        loras_of(room, [entry(InstalledSource("web.safetensors"))])


@pytest.mark.parametrize("scale", [-0.5, 4.05])
def test_strengths_that_the_api_does_not_take(room, scale: float) -> None:
    with pytest.raises(InvalidInput, match="LoRA slot 1: its strength is"):
        plan(loras=loras_of(room, [entry(HubSource("a/b"), scale)]))


def test_absent_ones_do_not_count_and_four_are_too_many(room) -> None:
    hub = entry(HubSource("a/b"))
    off = LoraEntry("x", 0.0, 1.0, HubSource("c/d"), "LoRA slot 2")
    assert len(loras_of(room, [hub, off, hub, hub])) == 3
    assert loras_of(room, None) == []
    with pytest.raises(InvalidInput, match="4 enabled LoRAs"):
        plan(loras=loras_of(room, [hub] * 4))
    with pytest.raises(InvalidInput, match="revision but no file"):
        loras_of(room, [entry(HubSource("a/b", "v1"))])


RANDOM = np.random.default_rng(0).random


def plan(**changes) -> Plan:
    base = Settings("a cat", "auto", 2.5, 28, "png", seed=7)
    return make_plan(replace(base, **changes), PUBLIC_ONLY, lambda: False, {})


def size_of(made: Plan) -> str:
    return made.payloads[0]["image_size"]


def seeds_of(made: Plan) -> list[int]:
    return [payload["seed"] for payload in made.payloads]


def test_auto_is_text_to_image_until_there_is_a_picture() -> None:
    assert plan().model.model_id == "blackforestlabs/flux-2/lora"
    assert size_of(plan()) == "landscape_4_3"
    edit = plan(images={"image_2": np.zeros((1, 90, 160, 3))})
    assert edit.model.model_id.endswith("/edit") and size_of(edit) == "landscape_16_9"
    assert edit.notices == [
        'image_1 is empty, so image_2 is "image 1" to the model. Connect from image_1 on without a '
        "gap."
    ]
    assert EDIT.properties["image_size"]["default"] == "square_hd", "the page's, whatever comes in"
    square = plan(images={"image_1": np.zeros((1, 9, 9, 3))}, image_size="portrait_4_3")
    assert size_of(square) == "portrait_4_3" and square.notices == []


def test_batches_spread_and_sizes_mix() -> None:
    many = plan(images={"image_1": RANDOM((2, 8, 16, 3)), "image_2": RANDOM((1, 4, 4, 4))})
    assert len(many.payloads[0]["image_urls"]) == 3
    filled = plan(images={"image_1": RANDOM((2, 8, 16, 3)), "image_3": RANDOM((1, 4, 4, 4))})
    assert filled.notices == [], "the batch is image 1 and 2, so image_3 is image 3 as it says"
    with pytest.raises(InvalidInput, match="4 connected pictures and 1 addresses"):
        plan(images={"image_1": RANDOM((4, 8, 8, 3))}, image_urls="https://a.example/b")
    with pytest.raises(InvalidInput, match="takes no picture"):
        plan(mode="text to image", images={"image_1": RANDOM((1, 8, 8, 3))})
    with pytest.raises(InvalidInput, match="no picture to edit"):
        plan(mode="edit")
    with pytest.raises(InvalidInput, match="mode is 'video'"):
        plan(mode="video")


def test_seeds_of_a_batch() -> None:
    assert seeds_of(plan(batch_count=3)) == [7, 8, 9]
    assert seeds_of(plan(seed=MAX_SEED, batch_count=2)) == [MAX_SEED, 0]
    drawn = seeds_of(plan(seed=-1, batch_count=2))
    assert 0 <= drawn[0] <= MAX_SEED and drawn[1] == (drawn[0] + 1) % (MAX_SEED + 1)
    with pytest.raises(InvalidInput, match="seed is -2"):
        plan(seed=-2)
    for odd in ("7", 7.5, True, [7], float("nan")):
        with pytest.raises(InvalidInput, match="seed must be integer"):
            plan(seed=odd)


@pytest.mark.parametrize("seed", [2**31, 2**31 + 5, 2**53 - 1, 2**64 - 1])
def test_a_larger_seed_is_taken_into_the_range_and_said(seed: int) -> None:
    """Another node's seed may be of 64 bit; the same one is the same request at each run."""
    made = plan(seed=seed, batch_count=2)
    sent = seed % 2**31
    assert seeds_of(made) == [sent, (sent + 1) % 2**31] == seeds_of(plan(seed=seed, batch_count=2))
    assert made.notices == [f"seed {seed} was sent as {sent}: {MAX_SEED} is the most."]


@pytest.mark.parametrize("seed", [-1, None])
def test_a_drawn_seed_is_said_and_what_run_again_does(seed: int | None) -> None:
    """The edit page's null is a random one: drawn here, sent and told, so it can be repeated."""
    made = plan(seed=seed, mode="edit", image_urls="https://a.example/b", image_size="square")
    (first,) = seeds_of(made)
    (said,) = made.notices
    assert said.startswith(f"seed -1 drew {first}. Run again shows this very picture for nothing")
    assert "randomize" in said and plan().notices == []


SIGNED_PICTURE = "https://files.example.com/a.png?X-Amz-Signature=abcdef0123456789"


def test_a_signed_picture_is_refused_as_a_signed_lora_is(room, monkeypatch) -> None:
    monkeypatch.delenv("FLUX2_LORA_EDIT_SEND_SIGNED_LINKS", raising=False)
    inputs = {"image_urls": [f"https://a.example/b\n\n{SIGNED_PICTURE}"]}
    with pytest.raises(InvalidInput, match="address 2") as caught:
        room.runcomfy.settings_of(inputs)
    assert "FLUX2_LORA_EDIT_SEND_SIGNED_LINKS=1" in str(caught.value)
    assert "image_1" in str(caught.value) and "abcdef" not in str(caught.value)
    monkeypatch.setenv("FLUX2_LORA_EDIT_SEND_SIGNED_LINKS", "1")
    assert room.runcomfy.settings_of(inputs)[0].image_urls == inputs["image_urls"][0]
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_operator")
    with pytest.raises(InvalidInput, match="your HF_TOKEN, which is never sent"):
        room.runcomfy.settings_of({"image_urls": ["https://a.example/hf_of_the_operator/b"]})
    plain = ["https://a.example/b.png?width=512", ""]
    monkeypatch.delenv("FLUX2_LORA_EDIT_SEND_SIGNED_LINKS")
    assert [one.image_urls for one in room.runcomfy.settings_of({"image_urls": plain})] == plain


def test_the_size_of_an_address_that_cannot_be_read_is_said(monkeypatch) -> None:
    monkeypatch.setattr(planning, "picture_size", lambda *_: None)
    unread = plan(image_urls="https://a.example/b.png")
    assert size_of(unread) == "square_hd" and "could not be read" in unread.notices[0]
    monkeypatch.setattr(planning, "picture_size", lambda *_: (900, 1600))
    assert size_of(plan(image_urls="https://a.example/b.png")) == "portrait_16_9"


def picture(height: int, width: int, value: float, mask: bool = False) -> Picture:
    rgb = np.full((height, width, 3), value, np.float32)
    return Picture(rgb, np.ones((height, width), np.float32) if mask else None)


def test_neighbours_of_one_size_are_one_batch_and_none_is_left_out(room) -> None:
    images, masks = room.runcomfy.as_batches(
        [picture(4, 6, 0.1), picture(4, 6, 0.2, True), picture(8, 2, 0.3), picture(4, 6, 0.4)]
    )
    assert [tuple(i.shape) for i in images] == [(2, 4, 6, 3), (1, 8, 2, 3), (1, 4, 6, 3)]
    assert [tuple(m.shape) for m in masks] == [(2, 4, 6), (1, 8, 2), (1, 4, 6)]
    assert images[0].dtype == torch.float32 and masks[0][:, 0, 0].tolist() == [0.0, 1.0]
    assert [round(float(i[-1].mean()), 3) for i in images] == [0.2, 0.3, 0.4]


def request(phase: Phase, position: int | None = None) -> Job:
    return Job(None, MODEL, {"seed": 1}, phase=phase, position=position)


def test_the_line_of_progress() -> None:
    text, price = progress_text, "$0.02 per image"
    assert text([request(Phase.QUEUED, 3)], 12.4, price) == (
        "In queue (position 3) · 12 s · $0.02 per image"
    )
    assert text([request(Phase.RUNNING)], 1, "") == "Running · 1 s"
    several = [request(Phase.SUCCEEDED), request(Phase.QUEUED, 5), request(Phase.QUEUED, 2),
               request(Phase.FAILED), request(Phase.RUNNING)]  # fmt: skip
    assert text(several, 3, "") == (
        "1 of 5 done · 1 running · 2 queued (position 2) · 1 failed · 3 s"
    )


def test_info_holds_what_is_promised_and_no_more() -> None:
    done, failed = request(Phase.SUCCEEDED), request(Phase.FAILED)
    done.result = read_result({"status": "succeeded", "output": "https://x/y?sig=1", "cost": 0.02})
    done.pictures = [picture(2, 2, 0)]
    failed.error = JobFailed("no luck", "id-2")
    done.payload = failed.payload = {"prompt": "secret words"}
    info = info_of([done, failed], [], "", ["a notice"], 1.0, 0.02)
    text = json.dumps(info)
    assert info["cost_usd"] == 0.02 and [r["status"] for r in info["requests"]] == [
        "succeeded", "failed",
    ]  # fmt: skip
    assert "secret" not in text and "sig=" not in text and "https" not in text
    assert summary(info) == "1 of 2 delivered · 1 s · cost $0.02\na notice\nno luck"


def opened(room) -> Account:
    return open_account(room.host.private_folder(), os.environ)


def fingerprint(room, **inputs) -> str:
    return room.runcomfy.Flux2EditRunComfy.fingerprint_inputs(**inputs)


def test_the_fingerprint_is_the_api(room, home: Path, monkeypatch) -> None:
    """Not the account: a renewed token must not run, and bill, everything again."""
    monkeypatch.setenv("RUNCOMFY_TOKEN", "token-one")
    first = fingerprint(room, prompt="a")
    assert first == fingerprint(room, prompt="a") and "token" not in first
    monkeypatch.setenv("RUNCOMFY_TOKEN", "token-two")
    assert fingerprint(room, prompt="a") == first
    monkeypatch.setenv("RUNCOMFY_API_BASE", "http://127.0.0.1:1")
    assert fingerprint(room, prompt="a") != first
    monkeypatch.setenv("RUNCOMFY_API_BASE", "http://elsewhere")
    assert fingerprint(room, prompt="a") == "no account"


def test_a_resume_of_all_open_ones_runs_again_when_there_are_others(
    room, home: Path, monkeypatch
) -> None:
    monkeypatch.setenv("RUNCOMFY_TOKEN", "token-one")
    none = fingerprint(room, resume_request_id=[" Open "])
    journal = opened(room).journal
    recorded(journal, "left", "id-1")
    assert fingerprint(room, resume_request_id=["open"]) != none
    assert "id-1" not in fingerprint(room, resume_request_id=[""])


@pytest.mark.parametrize("cost", [-0.01, float("nan")])
def test_an_odd_limit_is_no_limit_by_mistake(room, home: Path, monkeypatch, cost: float) -> None:
    monkeypatch.setenv("RUNCOMFY_TOKEN", "token-one")
    with pytest.raises(InvalidInput, match="max_cost is"):
        asyncio.run(room.runcomfy.Flux2EditRunComfy.execute(prompt=["a"], max_cost=[cost],
            **{name: [value] for name, value in vars(Settings("", "auto", 2.5, 28, "png")).items()
               if name not in ("prompt", "images", "loras")}))  # fmt: skip


@pytest.mark.parametrize("name", ["batch_count", "timeout_minutes"])
def test_ranges_are_checked_by_the_node_itself(room, home: Path, monkeypatch, name: str) -> None:
    monkeypatch.setenv("RUNCOMFY_TOKEN", "token-one")
    node = room.runcomfy.Flux2EditRunComfy
    inputs = {"prompt": "a", "mode": "auto", "image_size": "auto", "guidance_scale": 2.5,
              "num_inference_steps": 28, "seed": 1, "output_format": "png", "batch_count": 1,
              name: 0}  # fmt: skip
    with pytest.raises(InvalidInput, match=f"{name} is 0"):
        asyncio.run(node.execute(**{name: [value] for name, value in inputs.items()}))


def test_which_ids_are_resumed(room, home: Path, monkeypatch) -> None:
    monkeypatch.setenv("RUNCOMFY_TOKEN", "token-one")
    account = opened(room)

    def ids(account: Account, text: str) -> list[str]:
        return [entry.request_id for entry in resumed(account.journal, text)]

    assert ids(account, " a1 , b2\nb2;c3 ") == ["a1", "b2", "c3"]
    with pytest.raises(InvalidInput, match="no open request"):
        ids(account, "OPEN")
    for entry_id in ("id-1", "id-2"):
        recorded(account.journal, "left", entry_id)
    recorded(account.journal, "unknown")
    assert ids(account, "open") == ["id-1", "id-2"]
    for text in (".", "..", ",", " ; ,", " ".join(f"i{n}" for n in range(17))):
        with pytest.raises(InvalidInput, match="resume_request_id takes"):
            ids(account, text)


@pytest.mark.parametrize("off", [True, False])
def test_it_is_not_offered_where_api_nodes_are_off(room, monkeypatch, off: bool) -> None:
    from flux2_lora_edit.nodes import Flux2LoraEdit

    monkeypatch.setattr(room.host.args, "disable_api_nodes", off)
    offered = asyncio.run(Flux2LoraEdit().get_node_list())
    assert (room.runcomfy.Flux2EditRunComfy in offered) is not off


def test_the_private_folder_is_one_that_comfyui_serves_to_nobody(room, home: Path) -> None:
    import folder_paths

    folder = room.host.private_folder()
    assert folder.name.startswith(folder_paths.SYSTEM_USER_PREFIX)
    assert folder_paths.get_public_user_directory(folder.name) is None


def test_a_proxy_never_stands_before_this_machines_stand_in(
    room, home: Path, monkeypatch, standin: Standin
) -> None:
    monkeypatch.setenv("RUNCOMFY_TOKEN", new_token())
    monkeypatch.setenv("FLUX2_LORA_EDIT_PROXY", "http://127.0.0.1:9")
    live = opened(room)
    assert live.api.http.policy.proxy == "http://127.0.0.1:9"
    monkeypatch.setenv("RUNCOMFY_API_BASE", standin.origin)
    local = opened(room)
    assert local.policy.proxy is None and local.policy.origins == {standin.origin}
    assert local.api.price(MODEL)["price_unit"] == "image"
