"""A hub or link entry of our stack in other packs' hands, before and after its file is here."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from graphs import MODELS
from host.client import Client
from host.graph import Graph

pytestmark = pytest.mark.host

ADVICE = "Put Download LoRAs between"
NAME = "flux2-lora-edit/owner--others/ink.safetensors"


@pytest.fixture
def client(server):
    with Client(server.url) as page:
        page.forget()
        yield page


@pytest.fixture
def file(server):
    """Where the LoRA of ``owner/others`` lies once it is fetched; it is not there yet."""
    path = server.base / "models" / "loras" / NAME
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    yield path
    shutil.rmtree(path.parent)


def fetched(server, file):
    shutil.copyfile(server.base / "models" / "loras" / "kohya.safetensors", file)


def unet_of(graph):
    return graph.add("UNETLoader", unet_name=MODELS["dev"], weight_dtype="default")


def hub_stack(graph, **more):
    where = {"lora_2": "hugging face", "lora_2.repo": "owner/others", "lora_2.scale": 0.5}
    return graph.add("Flux2EditLoraStack", **{**where, **more})


def through(graph, way, stack):
    if way == "another stacker":
        return graph.add("TestOtherStacker", lora_stack=stack)
    if way == "a reroute":
        return graph.add("TestReroute", value=stack).out(1)
    if way == "our schedule":
        return graph.add("Flux2EditLoraSchedule", lora_stack=stack, schedule="0:1, 1:0")
    return graph.add("Flux2EditLoraStack", lora_stack=stack) if way == "our stack" else stack


def said(result, node):
    """What stands on a node's face after the run."""
    return "".join(result.outputs.get(node, {}).get("text", ""))


@pytest.mark.parametrize(
    "way", ["nothing", "another stacker", "a reroute", "our stack", "our schedule"]
)
def test_another_packs_applier_gets_the_installed_name(server, client, file, way):
    graph = Graph()
    unet = unet_of(graph)
    stack = hub_stack(graph)
    taken = through(graph, way, stack)
    model = graph.add("TestOtherApplier", title="Their loader", model=unet, lora_stack=taken)
    graph.add("TestDumpPatchedWeights", model=model, name="others")
    names = graph.add("PreviewAny", source=taken)

    result = client.run(graph.prompt).check()
    assert said(result, stack).startswith(ADVICE) and "Their loader" in said(result, stack)
    assert "LoRA slot 2 (owner/others)" in said(result, stack)
    assert load_file(server.output / "others.safetensors") == {}

    fetched(server, file)
    result = client.run(graph.prompt).check()
    assert stack in result.executed and said(result, stack) == ""
    assert json.loads(said(result, names)) == [[NAME, 0.5, 0.5]]
    ours = load_file(server.output / "others.safetensors")
    assert ours and client.run(graph.prompt).check().executed == []

    stock = Graph()
    unet = unet_of(stock)
    model = stock.add(
        "LoraLoaderModelOnly", model=unet, lora_name="kohya.safetensors", strength_model=0.5
    )
    stock.add("TestDumpPatchedWeights", model=model, name="stock")
    client.run(stock.prompt).check()
    stock = load_file(server.output / "stock.safetensors")
    assert all(ours[key].equal(stock[key]) for key in stock | ours)


def test_who_fetches_or_only_looks_needs_nothing_between(client, file):
    graph = Graph()
    unet = unet_of(graph)
    stack = hub_stack(graph)
    graph.add("PreviewAny", source=stack)
    info = graph.add("Flux2EditLoraInfo", lora_stack=stack)
    graph.add("PreviewAny", source=info)
    assert said(client.run(graph.prompt).check(), stack) == ""
    downloaded = graph.add("Flux2EditDownloadLoras", lora_stack=stack)
    model = graph.add("TestOtherApplier", model=unet, lora_stack=downloaded)
    graph.add("TestDumpPatchedWeights", model=model, name="others")
    result = client.run(graph.prompt)
    assert result.error.node_id == downloaded and said(result, stack) == ""


def test_who_takes_the_source_does_not_run_again_for_a_file_that_has_come(server, client, file):
    """Behind nodes that set more on the stack too: the sampler would run again with them."""
    graph = Graph()
    unet, stack = unet_of(graph), hub_stack(graph)
    scheduled = graph.add("Flux2EditLoraSchedule", lora_stack=stack, schedule="0:1, 1:0")
    region = graph.add("Flux2EditLoraRegion", lora_stack=scheduled, blocks="single=0")
    applied = graph.add("Flux2EditApplyLoraStack", model=unet, lora_stack=region)
    graph.add("PreviewAny", source=applied.out(2))
    assert client.run(graph.prompt).error.node_id == applied
    fetched(server, file)
    ran = client.run(graph.prompt).check().executed
    assert applied in ran and not {stack, scheduled, region} & {*ran}


def test_one_file_by_its_repo_and_by_its_name_is_one_lora(server, client, file):
    fetched(server, file)
    graph = Graph()
    unet = unet_of(graph)
    stack = hub_stack(graph, lora_1="installed", **{"lora_1.file": NAME, "lora_1.scale": 0.25})
    applied = graph.add("Flux2EditApplyLoraStack", model=unet, lora_stack=stack)
    seen = graph.add("PreviewAny", source=applied.out(2))
    report = json.loads(said(client.run(graph.prompt).check(), seen))
    assert [(lora["name"], lora["scale"]) for lora in report["loras"]] == [(NAME, 0.75)]


def test_info_tells_a_link_when_its_file_has_come(server, client):
    """With the trigger words that Civitai's page names, in a form that a prompt takes."""
    graph = Graph()
    link = {"lora_1": "url", "lora_1.url": "https://civitai.com/models/7/ink?modelVersionId=9"}
    info = graph.add("Flux2EditLoraInfo", lora_stack=graph.add("Flux2EditLoraStack", **link))
    words = graph.add("PreviewAny", source=info.out(1))
    result = client.run(graph.prompt).check()
    assert "is not on this disk yet" in said(result, info) and said(result, words) == ""

    file = server.base / "models" / "loras" / "flux2-lora-edit" / "civitai.com" / "ink.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copyfile(server.base / "models" / "loras" / "kohya.safetensors", file)
    file.with_name("adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    note = {"asks": ["civitai:civitai.com/version/9"], "size": file.stat().st_size,
            "trigger_words": ["ink style, by hand", "Ink Style", "heron"]}  # fmt: skip
    file.with_name(f"{file.name}.json").write_text(json.dumps(note))
    try:
        result = client.run(graph.prompt).check()
        assert said(result, words) == "ink style, by hand, heron"
        shown = said(result, info)
        assert "trigger words: ink style, by hand, heron" in shown and "rank: 8" in shown
        assert "adapter_config.json: peft_type LORA, use_dora" in shown
    finally:
        shutil.rmtree(file.parent)


def test_the_hosted_node_sends_the_address_and_pays_once(server, client, account, file):
    """A file that has appeared changes nothing for it: it does not run, so it cannot pay."""
    graph, before = Graph(), len(account.jobs)
    stack = hub_stack(graph)
    hosted = graph.add("Flux2EditRunComfy", prompt="a heron", lora_stack=stack, seed=-1)
    graph.add("SaveImage", images=hosted, filename_prefix="others")
    client.run(graph.prompt).check()
    fetched(server, file)
    assert client.run(graph.prompt).check().executed == []
    graph.set(hosted, prompt="two herons")
    client.run(graph.prompt).check()
    graph.set(stack, **{"lora_2.scale": 0.75})
    client.run(graph.prompt).check()
    sent = [job.payload["loras"] for job in account.jobs[before:]]
    scales = [0.5, 0.5, 0.75]
    assert sent == [[{"path": "owner/others", "scale": scale}] for scale in scales]


def test_the_hosted_node_refuses_more_than_a_scale_before_it_is_paid(client, account):
    graph, paid = Graph(), account.submissions
    stack = hub_stack(graph)
    scheduled = graph.add(
        "Flux2EditLoraSchedule", lora_stack=stack, schedule="0:1, 1:0", pictures="1, 0"
    )
    blocks = graph.add("Flux2EditLoraRegion", lora_stack=stack, blocks="single=0")
    negative = hub_stack(graph, **{"lora_2.scale": -0.5})
    hosted = graph.add("Flux2EditRunComfy", prompt="more than a scale", lora_stack=stack)
    graph.add("SaveImage", images=hosted, filename_prefix="others")
    for taken, words in (
        (
            scheduled,
            "LoRA slot 2 has more than a scale (schedule 0:1, 1:0 (linear, steps), pictures 1, 0), "
            "and RunComfy takes a scale alone.",
        ),
        (blocks, "LoRA slot 2 has more than a scale (blocks single=0), and RunComfy takes a scale"),
        (negative, "LoRA slot 2: its strength is -0.5; RunComfy takes 0 to 4."),
    ):
        graph.set(hosted, lora_stack=taken)
        result = client.run(graph.prompt)
        assert result.error.node_id == hosted and words in result.error.message
        assert account.submissions == paid
    # It was that alone.
    graph.set(hosted, lora_stack=stack)
    client.run(graph.prompt).check()
    assert account.submissions == paid + 1
