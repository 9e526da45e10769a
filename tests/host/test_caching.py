"""What runs again when a knob turns, from the host's own events; and Stop."""

import re
import shutil
import time

import pytest
import torch

from graphs import loaders, noise_picture, read_latent, upload
from host.graph import Graph

pytestmark = pytest.mark.host


@pytest.fixture
def edit(client, small_vae):
    """Our edit graph with two references; (graph, parts)."""
    graph = Graph()
    unet, clip, vae = loaders(graph, "dev", small_vae)
    counted = graph.add("TestCountEncodes", clip=clip, vae=vae)
    images = [
        graph.add("LoadImage", image=upload(client, f"c{i}.png", noise_picture(96 + 16 * i, 80, i)))
        for i in range(3)
    ]
    text = graph.add(
        "Flux2EditConditioning", clip=counted, vae=counted.out(1), prompt="first",
        negative_prompt="no", image_1=images[0], image_2=images[1],
    )  # fmt: skip
    latent = graph.add("EmptyFlux2LatentImage", width=96, height=96, batch_size=1)
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=text, latent_image=latent, seed=1, steps=2,
        guidance=2.5,
    )  # fmt: skip
    graph.add("SaveLatent", samples=sampler, filename_prefix="cache")
    client.forget()
    return graph, dict(text=text, sampler=sampler, images=images)


def ran(server, client, graph):
    """What was encoded, from the counting encoders' log lines; and the nodes that ran."""
    start = server.log_size()
    result = client.run(graph.prompt).check()
    return re.findall(r"COUNTED (.*)", server.log(start)), result.executed


def test_what_a_change_runs_again(server, client, edit):
    graph, parts = edit
    text, sampler = parts["text"], parts["sampler"]

    def after(**inputs):
        graph.set(text, **inputs)
        return ran(server, client, graph)[0]

    assert after() == ["text first", "text no", "picture 96x80", "picture 112x80"]
    assert after(prompt="second") == ["text second"]

    # A run that needs nothing of the conditioning must not make it forget.
    graph.set(sampler, seed=2)
    encoded, executed = ran(server, client, graph)
    assert encoded == [] and text not in executed and sampler in executed

    assert after(prompt="third") == ["text third"]
    assert after(image_2=parts["images"][2]) == ["picture 128x80"]
    assert after(prompt="second") == []
    assert after(reference_size="as is") == []
    assert ran(server, client, graph) == ([], [])


def test_trigger_words_change_the_text_alone(server, client, edit, base):
    """Typed, then linked from LoRA Info; those that the prompt holds are not put there again."""
    graph, parts = edit
    text = parts["text"]
    loras = base / "models" / "loras"
    shutil.copy(loras / "ai-toolkit.safetensors", loras / "triggered.safetensors")
    (loras / "triggered.txt").write_text("FIRST, film grain")
    ran(server, client, graph)

    graph.set(text, trigger_words="ohwx man, first")
    result = client.run(graph.prompt).check()
    assert "trigger words put before it: ohwx man" in result.outputs[text]["text"][0].split("\n")
    graph.set(text, trigger_words="first")
    assert ran(server, client, graph)[0] == [], "the text of the first run"

    file = {"lora_1": "installed", "lora_1.file": "triggered.safetensors"}
    info = graph.add("Flux2EditLoraInfo", lora_stack=graph.add("Flux2EditLoraStack", **file))
    graph.set(text, trigger_words=info.out(1))
    assert ran(server, client, graph)[0] == ["text film grain, first"]
    graph.set(text, prompt="Film grain: first")
    start = server.log_size()
    result = client.run(graph.prompt).check()
    assert "COUNTED picture" not in server.log(start)
    assert "trigger words are all in the prompt" in result.outputs[text]["text"][0].split("\n")


def test_a_changed_picture_file_is_encoded_again(server, client, edit):
    graph, parts = edit
    ran(server, client, graph)
    upload(client, "c0.png", noise_picture(144, 80, 9))
    assert ran(server, client, graph)[0] == ["picture 144x80"]


def test_stop_ends_within_one_step_and_leaves_no_trace(server, client, edit):
    graph, parts = edit
    client.run(graph.prompt).check()
    before = read_latent(server.output, "cache")
    steps = 60
    graph.set(parts["sampler"], steps=steps, seed=99)
    stopped_at = []

    def stop_at_third_step(kind, data):
        if kind != "progress_state" or stopped_at:
            return
        state = data["nodes"].get(parts["sampler"])
        if state and state["max"] == steps and state["value"] >= 3:
            client.interrupt()
            stopped_at.append((state["value"], time.monotonic()))

    result = client.run(graph.prompt, on_event=stop_at_third_step)
    assert stopped_at and result.status == "interrupted"
    last = max(p.value for p in result.progress if p.node == parts["sampler"])
    # The step in flight ends, and one more may have begun while the request travelled.
    assert last < steps / 2, f"stopped at {stopped_at[0][0]}, ran on to {last}"

    graph.set(parts["sampler"], steps=2, seed=1)
    client.forget()
    client.run(graph.prompt).check()
    assert torch.equal(before, read_latent(server.output, "cache"))
