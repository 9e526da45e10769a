"""Download LoRAs and LoRA Info are outputs: a stack and one of them is a whole graph; and nothing
else is different where they stand in a graph as before."""

import json

import pytest

from host.graph import Graph

pytestmark = pytest.mark.host

ALONE = ["Flux2EditDownloadLoras", "Flux2EditLoraInfo"]


def stack_and(node=None):
    """(graph, stack, node) of the whole graph."""
    graph = Graph()
    slot = {"lora_1": "installed", "lora_1.file": "kohya.safetensors", "lora_1.scale": 0.5}
    stack = graph.add("Flux2EditLoraStack", **slot)
    return graph, stack, node and graph.add(node, lora_stack=stack)


@pytest.mark.parametrize("node", ALONE)
def test_a_stack_and_the_node_are_a_whole_graph(client, node):
    client.forget()
    graph, stack, alone = stack_and(node)
    first = client.run(graph.prompt).check()
    assert sorted(first.executed) == sorted([stack, alone])
    (words,) = first.outputs[alone]["text"]
    assert "kohya.safetensors" in words
    assert [text for one, text in first.texts if one == alone] == [words]

    again = client.run(graph.prompt).check()
    assert again.executed == []
    # A page that was reloaded is told the words of a node that did not run again.
    assert again.outputs[alone]["text"] == [words]


@pytest.mark.parametrize("node", ALONE)
def test_what_reads_its_output_runs_it_once(client, node):
    client.forget()
    graph, stack, alone = stack_and(node)
    shown = graph.add("PreviewAny", source=alone)
    result = client.run(graph.prompt).check()
    assert sorted(result.executed) == sorted([stack, alone, shown])
    assert len([one for one, _ in result.texts if one == alone]) == 1
    (value,) = result.outputs[shown]["text"]
    if node == ALONE[0]:
        assert json.loads(value) == [["kohya.safetensors", 0.5, 0.5]]
    else:
        assert value == result.outputs[alone]["text"][0]


@pytest.mark.parametrize("node", ALONE)
def test_put_beside_a_graph_that_ran_it_runs_alone(client, node):
    client.forget()
    graph, stack, _ = stack_and()
    graph.add("PreviewAny", source=stack)
    client.run(graph.prompt).check()
    added = graph.add(node, lora_stack=stack)
    assert client.run(graph.prompt).check().executed == [added]
