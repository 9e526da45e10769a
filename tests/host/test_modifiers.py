"""FLUX.2 LoRA Schedule and FLUX.2 LoRA Region in a real ComfyUI: refused at the queue, told by
Apply, kept by whom, and what runs again.

That the hosted node refuses them is in test_stack_and_others.py, whose server has one.
"""

import json

import pytest

from graphs import loaders, read_latent
from host.client import PromptRefused
from host.graph import Graph

pytestmark = pytest.mark.host

SCHEDULE, REGION = "Flux2EditLoraSchedule", "Flux2EditLoraRegion"
NAMES = ("ai-toolkit.safetensors", "diffusers.safetensors")
FADE = "0:1, 1:0"


class Edit:
    """A small picture, or a batch, by a stack whose LoRAs ``modify(graph, stack)`` changes."""

    def __init__(self, vae, modify, *, scales=(0.5, -1.0), mode="auto", pictures=1):
        self.graph = graph = Graph()
        self.unet, clip, vae = loaders(graph, "klein", vae)
        slots = {}
        for number, (name, scale) in enumerate(zip(NAMES, scales, strict=False), start=1):
            slot = f"lora_{number}"
            slots |= {slot: "installed", f"{slot}.file": name, f"{slot}.scale": scale}
        self.stack = graph.add("Flux2EditLoraStack", **slots)
        self.modified = modify(graph, self.stack)
        self.model = graph.add(
            "Flux2EditApplyLoraStack", model=self.unet, lora_stack=self.modified, mode=mode
        )
        self.report = graph.add("PreviewAny", source=self.model.out(2))
        self.text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt="x")
        latent = graph.add("EmptyFlux2LatentImage", width=64, height=96, batch_size=pictures)
        self.sampler = graph.add(
            "Flux2EditSampler", model=self.model, positive=self.text, latent_image=latent, seed=3,
            steps=2,
        )  # fmt: skip
        self.saved = graph.add("SaveLatent", samples=self.sampler, filename_prefix="modifiers")

    def loras(self, result):
        """What Apply's report says of each LoRA."""
        return json.loads(result.outputs[self.report]["text"][0])["loras"]


def scheduled(graph, stack, **inputs):
    return graph.add(SCHEDULE, lora_stack=stack, **{"schedule": FADE, **inputs})


def said(result, node):
    return "".join(result.outputs.get(node, {}).get("text", ""))


@pytest.mark.parametrize(
    ("kind", "inputs", "words"),
    [
        (SCHEDULE, {"schedule": "0:1, 1.5:0"}, "schedule, position 6: “1.5”: a moment is from 0"),
        (SCHEDULE, {"schedule": " "}, "schedule is empty. Write 0:1"),
        (SCHEDULE, {"pictures": "0,, 1"}, "pictures, position 3: “,”: nothing stands before"),
        (SCHEDULE, {"between": "cubic"}, "between: 'cubic' not in "),
        (SCHEDULE, {"lora": "4"}, "lora: '4' not in "),
        (REGION, {"blocks": "double 3-1=1"}, "blocks, position 8: “3-1”: the range runs backwards"),
        (REGION, {"text": 1.5}, "1.5 bigger than max of 1.0"),
        (REGION, {"references": -0.1}, "-0.1 smaller than min of 0.0"),
    ],
)
def test_a_mistake_is_refused_at_the_queue(client, kind, inputs, words):
    graph = Graph()
    node = graph.add(kind, lora_stack=graph.add("Flux2EditLoraStack"), **inputs)
    graph.add("PreviewAny", source=node)
    with pytest.raises(PromptRefused) as refused:
        client.queue(graph.prompt)
    told = "\n".join(refused.value.details(node))
    assert told.count(words) == 1, told


def test_what_comes_over_a_link_is_read_at_the_run(client):
    graph = Graph()
    stack = graph.add("TestLoraStack", json='[["a.safetensors", 1, 1]]')
    text = graph.add("PrimitiveString", value="0:1, 0.5:0\n")
    node = graph.add(SCHEDULE, lora_stack=stack, schedule=text, between="hold")
    blocks = graph.add("PrimitiveString", value="single=0")
    share = graph.add("PrimitiveFloat", value=0.5)
    region = graph.add(REGION, lora_stack=node, blocks=blocks, text=share)
    graph.add("PreviewAny", source=region)
    result = client.run(graph.prompt).check()
    assert said(result, node) == (
        "a.safetensors: ████████▁▁▁▁▁▁▁▁ schedule 0:1, 0.5:0 (hold, steps)"
    )
    assert said(result, region) == (
        "a.safetensors: region 100 % of the picture, text 0.5, references 1, blocks single=0"
    )
    for source, value, where, words in (
        (text, "0:1, 0:11", node, "schedule, position 8: “11”: a multiplier is from -10 to 10"),
        (share, 1.5, region, "text is 1.5; it takes 0 to 1."),
        (blocks, "single", region, "blocks, position 1: “single”: write it like"),
    ):
        before = graph.prompt[source]["inputs"]["value"]
        graph.set(source, value=value)
        failed = client.run(graph.prompt)
        assert failed.error.node_id == where and words in failed.error.message
        graph.set(source, value=before)


def test_a_node_says_what_it_set_and_on_which_lora(client):
    """Slot 1 is off, and slot 2 stays slot 2."""
    graph = Graph()
    slots = {f"lora_{number}": "installed" for number in (1, 2)}
    slots |= {f"lora_{number}.file": NAMES[number - 1] for number in (1, 2)}
    stack = graph.add("Flux2EditLoraStack", **slots, **{"lora_1.enabled": False})
    nodes = {
        "two": graph.add(SCHEDULE, lora_stack=stack, lora="2", schedule=FADE, between="hold"),
        "one": graph.add(SCHEDULE, lora_stack=stack, lora="1", schedule=FADE),
        "pictures": graph.add(SCHEDULE, lora_stack=stack, pictures="0,.5"),
        "unset": graph.add(SCHEDULE, lora_stack=stack),
        "unset region": graph.add(REGION, lora_stack=stack),
        "black": graph.add(REGION, lora_stack=stack, text=0, mask=_mask(graph, 0.0)),
    }
    for node in nodes.values():
        graph.add("PreviewAny", source=node)
    result = client.run(graph.prompt).check()
    told = {name: said(result, node) for name, node in nodes.items()}
    nothing = "Nothing is set here: the LoRAs pass through as they are."
    assert told == {
        "two": f"{NAMES[1]}: {'█' * 16} schedule 0:1, 1:0 (hold, steps)",
        "one": "lora is 1, and the stack holds LoRA slot 2: nothing changes.",
        "pictures": f"{NAMES[1]}: pictures 0, 0.5",
        "unset": nothing,
        "unset region": nothing,
        "black": (
            f"{NAMES[1]}: region 0 % of the picture, text 0, references 1. The mask is black: on "
            "the picture the LoRA does nothing. Load Image gives such a mask for a picture without "
            "transparency"
        ),
    }


def _mask(graph, value):
    return graph.add("SolidMask", width=64, height=96, value=value)


def test_a_stack_with_both_runs_and_the_report_says_it(server, client, small_vae):
    def modify(graph, stack):
        stack = scheduled(graph, stack, lora="1", between="ease out", pictures="1, 0")
        stack = graph.add(
            REGION, lora_stack=stack, lora="2", mask=_mask(graph, 0.4), text=0, blocks="single=0.5"
        )
        return graph.add(
            SCHEDULE, lora_stack=stack, lora="2", schedule="0:0.5", clock="core percent"
        )

    edit = Edit(small_vae, modify, pictures=2)
    result = client.run(edit.graph.prompt).check()
    latent = read_latent(server.output, "modifiers")
    first = ["schedule 0:1, 1:0 (ease out, steps), pictures 1, 0"]
    second = [
        "region 40 % of the picture, text 0, references 1", "blocks single=0.5",
        "schedule 0:0.5 (linear, core percent)",
    ]  # fmt: skip
    loras = edit.loras(result)
    assert [lora["modifiers"] for lora in loras] == [first, second]
    assert [lora["scale"] for lora in loras] == [0.5, -1.0]
    lines = said(result, edit.model).split("\n")
    assert lines[0].startswith(NAMES[0]) and lines[0].endswith(f"scale 0.5, {first[0]}")
    assert lines[1].startswith(NAMES[1])
    assert lines[1].endswith(f"scale -1, {', '.join(second)}")
    assert lines[2] == f"side path: {NAMES[0]} changes within the run, which no weight can hold"
    # Without the first LoRA the picture that has none of it stays, and the other is another.
    edit.graph.set(edit.stack, **{"lora_1.scale": 0.0})
    client.run(edit.graph.prompt).check()
    apart = (read_latent(server.output, "modifiers") - latent).abs().amax(dim=(1, 2, 3))
    assert apart[0] > 1e-2 and apart[1] < 1e-5, apart
    # Without what was set on the second both are others.
    edit.graph.set(edit.model, lora_stack=edit.stack)
    client.run(edit.graph.prompt).check()
    apart = (read_latent(server.output, "modifiers") - latent).abs().amax(dim=(1, 2, 3))
    assert (apart > 1e-3).all(), apart


def test_a_changed_text_runs_apply_and_the_sampler_again_and_nothing_before(client, small_vae):
    client.forget()
    edit = Edit(small_vae, scheduled)
    client.run(edit.graph.prompt).check()
    edit.graph.set(edit.modified, schedule="0:1, 0.5:0")
    behind = {edit.modified, edit.model, edit.report, edit.sampler, edit.saved}
    assert set(client.run(edit.graph.prompt).check().executed) == behind
    assert client.run(edit.graph.prompt).check().executed == []


@pytest.mark.parametrize("way", ["mode merge", "a node that saves the weights"])
def test_what_must_be_in_the_weights_refuses_a_schedule_and_takes_blocks(client, small_vae, way):
    merge = way == "mode merge"
    edit = Edit(small_vae, scheduled, mode="merge" if merge else "auto")
    who = "mode merge puts"
    if not merge:
        save = edit.graph.add("ModelSave", model=edit.model, filename_prefix="never")
        who = f"ModelSave (node {save}) takes"
    result = client.run(edit.graph.prompt)
    assert result.error.node_id == edit.model and result.error.message.startswith(
        f"{NAMES[0]} has a schedule or a region, which no weight can hold, and {who} the LoRAs in "
        "the weights. Set mode to auto, or take out that node"
    )
    edit.graph.set(
        edit.model, lora_stack=edit.graph.add(REGION, lora_stack=edit.stack, blocks="double=0")
    )
    result = client.run(edit.graph.prompt).check()
    assert [lora["modifiers"] for lora in edit.loras(result)] == [["blocks double=0"]] * 2
    assert said(result, edit.model).split("\n")[-1].startswith("merge: ")


def test_blocks_that_the_model_has_not_are_refused_by_apply(client, small_vae):
    edit = Edit(small_vae, lambda graph, stack: graph.add(REGION, lora_stack=stack, blocks="1, 0"))
    result = client.run(edit.graph.prompt)
    assert result.error.node_id == edit.model
    assert result.error.message.startswith("LoRA slot 1: blocks has 2 numbers; a FLUX.2 of width")


@pytest.mark.parametrize(
    ("between", "kept"),
    [("Flux2EditDownloadLoras", True), ("Flux2EditLoraStack", True), ("TestOtherStacker", False)],
)
def test_who_keeps_what_was_set(client, small_vae, between, kept):
    def modify(graph, stack):
        return graph.add(between, lora_stack=scheduled(graph, stack))

    edit = Edit(small_vae, modify, scales=(0.5,))
    del edit.graph.prompt[edit.saved]
    result = client.run(edit.graph.prompt).check()
    said = ["schedule 0:1, 1:0 (linear, steps)"] if kept else []
    assert [lora["modifiers"] for lora in edit.loras(result)] == [said]
