"""The LoRA nodes on the real host: names, refusals, foreign stacks, the report."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphs import loaders, read_latent
from host.client import PromptRefused
from host.graph import Graph

pytestmark = pytest.mark.host

NONE = {"lora_1": "none", "lora_2": "none", "lora_3": "none"}


def slot(number, name, scale=1.0, enabled=True):
    key = f"lora_{number}"
    return {
        key: "installed",
        f"{key}.file": name,
        f"{key}.scale": scale,
        f"{key}.enabled": enabled,
    }


def sampled(graph, model, clip, vae, prefix):
    """Sample one small picture with ``model`` and save its latent."""
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt="x")
    latent = graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=1)
    sampler = graph.add(
        "Flux2EditSampler", model=model, positive=text, latent_image=latent, seed=3, steps=2,
        guidance=2.5,
    )  # fmt: skip
    graph.add("SaveLatent", samples=sampler, filename_prefix=prefix)


def applied(client, vae, *, model="dev", prefix="lora", stack=None, mismatch="error", **slots):
    """(graph, apply node, stack node): our loader in front of a small sampling."""
    graph = Graph()
    unet, clip, vae = loaders(graph, model, vae)
    made = graph.add("Flux2EditLoraStack", **{**NONE, **slots}) if stack is None else stack(graph)
    apply = graph.add(
        "Flux2EditApplyLoraStack", model=unet, lora_stack=made, on_mismatch=mismatch, mode="auto"
    )
    graph.add("PreviewAny", source=apply.out(2))
    sampled(graph, apply, clip, vae, prefix)
    return graph, apply, made


def report_of(result):
    return next(
        json.loads(output["text"][0])
        for output in result.outputs.values()
        if "text" in output and output["text"][0].startswith("{")
    )


def run(server, client, graph, prefix="lora"):
    result = client.run(graph.prompt).check()
    return read_latent(server.output, prefix), report_of(result)


def queue_refuses(client, graph, pattern):
    with pytest.raises(PromptRefused) as caught:
        client.queue(graph.prompt)
    words = str(caught.value)
    assert re.search(pattern, words, re.DOTALL), words
    return caught.value


@pytest.fixture
def nested(server):
    """A LoRA in a sub-folder: ``styles/deep/ink.safetensors``."""
    loras = server.base / "models" / "loras"
    target = loras / "styles" / "deep" / "ink.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(loras / "ai-toolkit.safetensors", target)
    return target


def test_the_stack_of_two_trainers_changes_the_picture(server, client, small_vae):
    plain, _ = run(server, client, applied(client, small_vae)[0])
    graph, apply, _ = applied(
        client, small_vae, **slot(1, "ai-toolkit.safetensors"), **slot(3, "kohya.safetensors", 0.5)
    )
    changed, report = run(server, client, graph)
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert [lora["name"] for lora in report["loras"]] == [
        "ai-toolkit.safetensors",
        "kohya.safetensors",
    ]
    assert all(lora["matched"] == lora["total"] > 0 for lora in report["loras"])
    again, _ = run(server, client, applied(client, small_vae)[0])
    assert torch.equal(plain, again), "the loader's model was changed"


def test_absent_slots_read_nothing(server, client, small_vae):
    plain, _ = run(server, client, applied(client, small_vae)[0])
    for slots in (
        slot(1, "ai-toolkit.safetensors", scale=0.0),
        slot(2, "ai-toolkit.safetensors", enabled=False),
        slot(2, "no-such-file.safetensors", enabled=False),
    ):
        latent, report = run(server, client, applied(client, small_vae, **slots)[0])
        assert report["loras"] == []
        assert torch.equal(latent, plain)


@pytest.mark.parametrize(
    "name",
    [
        "styles/deep/ink.safetensors",
        "styles\\deep\\ink.safetensors",
        "ink.safetensors",
        "other\\folder\\ink.safetensors",
        "Styles/Deep/Ink.safetensors",
        "ink",
    ],
)
def test_names_of_other_machines_are_found(server, client, small_vae, nested, name):
    _, report = run(server, client, applied(client, small_vae, **slot(1, name))[0])
    assert report["loras"][0]["name"].replace("\\", "/") == "styles/deep/ink.safetensors"


def test_an_absolute_path_into_the_loras_folder_is_taken(server, client, small_vae, nested):
    """As LoRA Manager gives it, from another pack's stack and from our own slot."""
    entries = [[str(nested), 1.0, 1.0], [str(nested).upper(), -0.5, 0.0]]
    graph, apply, _ = applied(
        client, small_vae, stack=lambda graph: graph.add("TestLoraStack", json=json.dumps(entries))
    )
    _, report = run(server, client, graph)
    assert [lora["scale"] for lora in report["loras"]] == [0.5]
    _, report = run(server, client, applied(client, small_vae, **slot(1, str(nested)))[0])
    assert report["loras"][0]["name"].replace("\\", "/") == "styles/deep/ink.safetensors"
    outside = nested.parents[4] / "ink.safetensors"
    graph.set(graph.prompt[apply]["inputs"]["lora_stack"][0], json=json.dumps([[str(outside), 1]]))
    assert "outside ComfyUI's loras folders" in client.run(graph.prompt).error.message


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("ai-tolkit.safetensors", r"LoRA slot 1.*ai-tolkit.*ai-toolkit\.safetensors"),
        ("../../secret.safetensors", "LoRA slot 1.*outside"),
        ("/etc/passwd.safetensors", "LoRA slot 1"),
        ("C:\\loras\\zzz.safetensors", "LoRA slot 1"),
        ("ai-toolkit.ckpt", r"LoRA slot 1.*\.safetensors"),
    ],
)
def test_a_missing_or_forbidden_name_stops_at_queue_time(client, small_vae, name, pattern):
    refused = queue_refuses(client, applied(client, small_vae, **slot(1, name))[0], pattern)
    assert len(refused.details()) == 1, "said once"


@pytest.mark.parametrize(
    ("slots", "pattern"),
    [
        ({**slot(2, "kohya.safetensors", 4.5)}, "4.5"),
        ({"lora_1": "teleport"}, "lora_1"),
        (
            {"lora_1": "hugging face", "lora_1.repo": "not a repo", "lora_1.scale": 1.0,
             "lora_1.enabled": True},
            "LoRA slot 1",
        ),
        (
            {"lora_3": "url", "lora_3.url": "http://example.com/a.safetensors",
             "lora_3.scale": 1.0, "lora_3.enabled": True},
            "LoRA slot 3.*https",
        ),
    ],
)  # fmt: skip
def test_a_bad_slot_stops_at_queue_time(client, small_vae, slots, pattern):
    queue_refuses(client, applied(client, small_vae, **slots)[0], pattern)


@pytest.mark.parametrize(
    ("model", "name", "pattern"),
    [
        ("dev", "flux1.safetensors", r"LoRA slot 1.*FLUX\.1.*flux1\.safetensors$"),
        ("dev", "klein-9b-width.safetensors", r"LoRA slot 1.*4096.*256.*klein-9b-width"),
    ],
)
def test_a_lora_for_another_model_stops_before_sampling(client, small_vae, model, name, pattern):
    graph, apply, _ = applied(client, small_vae, model=model, **slot(1, name))
    result = client.run(graph.prompt)
    assert result.status == "error" and result.error.node_id == apply
    assert re.search(pattern, result.error.message.strip(), re.DOTALL), result.error.message
    assert result.error.exception_type == "flux2_lora_edit.LoraStackError", "no path of this disk"
    sampler = next(n for n, v in graph.prompt.items() if v["class_type"] == "Flux2EditSampler")
    assert sampler not in result.executed


def test_warn_applies_what_fits_and_says_the_rest(client, small_vae):
    graph, _, _ = applied(
        client, small_vae, mismatch="warn", **slot(1, "klein-9b-width.safetensors")
    )
    report = report_of(client.run(graph.prompt).check())
    assert report["warnings"]


def test_a_model_that_is_not_flux2(client, small_vae):
    graph, apply, _ = applied(client, small_vae, **slot(1, "kohya.safetensors"))
    other = graph.add("UNETLoader", unet_name="flux1-dev-tiny.safetensors", weight_dtype="default")
    graph.set(apply, model=other)
    result = client.run(graph.prompt)
    assert result.status == "error" and result.error.node_id == apply
    assert "FLUX.2" in result.error.message


def test_chained_stacks_and_the_limit_of_three(server, client, small_vae):
    def chain(count):
        def build(graph):
            first = graph.add(
                "Flux2EditLoraStack",
                **{**NONE, **slot(1, "ai-toolkit.safetensors"), **slot(2, "kohya.safetensors")},
            )
            more = [slot(n + 1, "diffusers.safetensors", 0.1 * (n + 1)) for n in range(count)]
            merged = {key: value for part in more for key, value in part.items()}
            return graph.add("Flux2EditLoraStack", lora_stack=first, **{**NONE, **merged})

        return build

    _, report = run(server, client, applied(client, small_vae, stack=chain(1))[0])
    names = [lora["name"] for lora in report["loras"]]
    assert names == ["ai-toolkit.safetensors", "kohya.safetensors", "diffusers.safetensors"]
    result = client.run(applied(client, small_vae, stack=chain(2))[0].prompt)
    assert result.status == "error"
    assert re.search("4 enabled LoRAs; 3 is the most", result.error.message)


@pytest.mark.parametrize(
    ("stack", "count"),
    [
        ("null", 0),
        ("[]", 0),
        ('[["None", 1.0, 1.0]]', 0),
        ('[["ai-toolkit.safetensors", -0.5, 1.0], ["kohya.safetensors", 1.0, 1.0]]', 2),
    ],
)
def test_stacks_of_other_packs(server, client, small_vae, stack, count):
    graph, _, _ = applied(
        client, small_vae, stack=lambda graph: graph.add("TestLoraStack", json=stack)
    )
    _, report = run(server, client, graph)
    assert len(report["loras"]) == count


TEXT = {
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.full((2, 768), 0.02),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.full((3072, 2), 0.02),
}


@pytest.mark.parametrize("beside", ["ai-toolkit", None], ids=["with the model's", "alone"])
def test_strength_0_for_the_model_still_trains_the_text_encoder(server, client, small_vae, beside):
    loras = server.base / "models" / "loras"
    own = load_file(loras / f"{beside}.safetensors") if beside else {}
    save_file(own | TEXT, loras / "text.safetensors")
    graph = Graph()
    unet, clip, _ = loaders(graph, "dev", small_vae)
    entry = graph.add("TestLoraStack", json='[["text.safetensors", 0, 0.5]]')
    ours = graph.add(
        "Flux2EditApplyLoraStack", model=unet, clip=clip, lora_stack=entry, mode="auto",
        on_mismatch="error",
    )  # fmt: skip
    hosts = graph.add(
        "LoraLoader", model=unet, clip=clip, lora_name="text.safetensors", strength_model=0.0,
        strength_clip=0.5,
    )  # fmt: skip
    graph.add("TestDumpPatchedWeights", model=ours, name="untouched")
    graph.add("PreviewAny", source=ours.out(2))
    for name, encoder in (("plain", clip), ("ours", ours.out(1)), ("hosts", hosts.out(1))):
        text = graph.add("CLIPTextEncode", clip=encoder, text="a heron")
        graph.add("TestSaveConditioning", conditioning=text, name=name)
    report = report_of(client.run(graph.prompt).check())
    plain, ours, hosts = (
        load_file(server.output / f"{name}.safetensors")["text_0"]
        for name in ("plain", "ours", "hosts")
    )
    assert torch.equal(ours, hosts) and not torch.equal(ours, plain)
    assert load_file(server.output / "untouched.safetensors") == {}
    (lora,) = report["loras"]
    assert (lora["name"], lora["scale"], lora["clip_scale"]) == ("text.safetensors", 0, 0.5)
    assert report["mode"]["taken"] == "none"


def test_a_replaced_file_is_read_again(server, client, small_vae):
    loras = server.base / "models" / "loras"
    target = loras / "replaced.safetensors"
    shutil.copyfile(loras / "ai-toolkit.safetensors", target)
    graph, _, _ = applied(client, small_vae, **slot(1, "replaced.safetensors"))
    first, _ = run(server, client, graph)
    shutil.copyfile(loras / "kohya.safetensors", target)
    second, _ = run(server, client, graph)
    assert not torch.allclose(first, second, atol=1e-3)


def test_info_needs_no_model(client):
    graph = Graph()
    stack = graph.add("Flux2EditLoraStack", **{**NONE, **slot(1, "diffusers.safetensors")})
    info = graph.add("Flux2EditLoraInfo", lora_stack=stack)
    graph.add("PreviewAny", source=info)
    result = client.run(graph.prompt).check()
    assert re.search("diffusers.safetensors.*rank: ", result.outputs[info]["text"][0], re.DOTALL)


def test_download_passes_installed_files_through(client):
    graph = Graph()
    stack = graph.add("Flux2EditLoraStack", **{**NONE, **slot(1, "kohya.safetensors", 0.5)})
    download = graph.add("Flux2EditDownloadLoras", lora_stack=stack)
    graph.add("PreviewAny", source=download)
    result = client.run(graph.prompt).check()
    shown = next(o["text"][0] for n, o in result.outputs.items() if n != download)
    assert json.loads(shown) == [["kohya.safetensors", 0.5, 0.5]]
