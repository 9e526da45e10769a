"""What a column names in the graph; what names nothing is refused with what is near it.

``edit.json`` is the demo's edit in API format, and its classes as ComfyUI 0.30 describes them.
"""

import copy
import json
from pathlib import Path

import pytest

from flux2_lora_edit.fleet.rows.binding import Refused, bind
from flux2_lora_edit.fleet.rows.graph import Graph

CASE = json.loads(Path(__file__).with_name("edit.json").read_text("utf-8"))


@pytest.fixture
def graph():
    return copy.deepcopy(CASE["graph"])


def add(graph, kind, title=None, **inputs):
    node = str(len(graph) + 1)
    graph[node] = {"class_type": kind, "inputs": inputs}
    if title:
        graph[node]["_meta"] = {"title": title}
    return node


def bound(graph, *names):
    """(node, input) of each column, or what is wrong."""
    columns, problems = bind(Graph(graph, CASE["info"]), names)
    return [(column.node, column.input) for column in columns], problems


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("9.seed", ("9", "seed")),
        ("FLUX.2 Sampler.seed", ("9", "seed")),
        ("flux.2 sampler.seed", ("9", "seed")),
        ("Sampler.seed", ("9", "seed")),
        ("FLUX.2 Edit Conditioning.prompt", ("7", "prompt")),
        ("LoRA Stack.lora_1.scale", ("4", "lora_1.scale")),
        ("FLUX.2 LoRA Stack.lora_1.scale", ("4", "lora_1.scale")),
        ("4.lora_3", ("4", "lora_3")),
        ("lora_2.file", ("4", "lora_2.file")),
        ("image 1.image", ("6", "image")),
        ("image", ("6", "image")),
        ("seed", ("9", "seed")),
        # Left out of the graph, and offered by the schema alone.
        ("7.trigger_words", ("7", "trigger_words")),
        ("LoRA Stack.lora_3.url", ("4", "lora_3.url")),
    ],
)
def test_a_column_names_an_input(graph, name, place):
    assert bound(graph, name) == ([place], [])


def test_an_exact_title_is_before_an_ending(graph):
    node = add(graph, "PrimitiveInt", "Sampler", value=1)
    assert bound(graph, f"{node}.value", "Sampler.value")[0] == [(node, "value")]
    other = add(graph, "KSampler", "sampler", seed=2)
    assert bound(graph, "Sampler.seed") == ([(other, "seed")], [])
    assert bound(graph, "FLUX.2 Sampler.seed") == ([("9", "seed")], [])


def test_a_title_with_dots_is_cut_where_the_node_ends(graph):
    graph["9"]["_meta"] = {"title": "v1.2.b"}
    graph["4"]["_meta"] = {"title": "v1"}
    assert bound(graph, "v1.2.b.seed", "v1.lora_1.scale")[0] == [
        ("9", "seed"), ("4", "lora_1.scale"),
    ]  # fmt: skip


def test_a_bare_seed_is_a_noise_seed_too(graph):
    del graph["9"]["inputs"]["seed"]
    graph["9"] = {"class_type": "VAEDecode", "inputs": {"samples": ["8", 0]}}
    noise = add(graph, "RandomNoise", noise_seed=1)
    assert bound(graph, "seed")[0] == [(noise, "noise_seed")]
    add(graph, "KSampler", seed=1)
    (problem,) = bound(graph, "seed")[1]
    assert "'seed': it fits 2 nodes: 'RandomNoise' (node 12)" in problem
    assert "as in 12.noise_seed" in problem


def said(graph, name):
    columns, (problem,) = bound(graph, name)
    assert columns == []
    return problem


def test_what_names_nothing(graph):
    assert "'FLUX.2 Sampler' (node 9) has no input 'sed'. Near it: 'seed'. It has seed, steps" in (
        said(graph, "Sampler.sed")
    )
    assert "Near it: 'prompt'" in said(graph, "promt")
    assert "Near it: 'FLUX.2 Edit Conditioning.prompt'" in said(graph, "FLUX.2 Conditioning.prompt")
    assert "Write title.input or id.input; the nodes are 'Load Diffusion" in said(graph, "zzz")
    # A word's end is not a word.
    assert "no node and no input is called so" in said(graph, "ampler.seed")


def test_two_nodes_of_a_title(graph):
    add(graph, "LoadImage", "image 1", image="example.png")
    assert said(graph, "image 1.image").endswith("Say which by its id, as in 6.image.")


def test_a_linked_input_names_what_feeds_it(graph):
    node = add(graph, "PrimitiveInt", "all seeds", value=1)
    graph["9"]["inputs"]["seed"] = [node, 0]
    text = f"is linked; it gets its value from 'all seeds' (node {node}). Set a value of that one: "
    for name in ("seed", "9.seed"):
        assert f"{text}{node}.value" in said(graph, name)
    assert "All of them are linked" in said(graph, "model")


def test_a_socket_takes_no_value(graph):
    assert "takes a link, not a value" in said(graph, "9.negative")


def test_an_input_that_no_schema_knows_is_typed_by_the_graph(graph):
    graph["9"]["inputs"]["extra"] = 3
    columns, problems = bind(Graph(graph, CASE["info"]), ["9.extra"])
    assert not problems
    assert [form.spec.kind for form in columns[0].forms] == ["INT"]


def test_titles_and_columns_may_be_odd(graph):
    graph["9"]["_meta"] = {"title": "two\n lines"}
    graph["8"]["_meta"] = ["no title"]
    assert bound(graph, " two  lines .seed")[0] == [("9", "seed")]
    assert len(said(graph, "x" * 10_000)) < 500
    assert "\n" not in said(graph, "two lines.\nsed\n!")


def test_two_spellings_of_one_input(graph):
    places, (problem,) = bound(graph, "seed", "9.seed")
    assert places == [("9", "seed")]
    assert "'9.seed': 'seed' sets FLUX.2 Sampler.seed (node 9) too" in problem


def refused(graph):
    with pytest.raises(Refused) as caught:
        Graph(graph, CASE["info"])
    return str(caught.value)


def test_graphs_that_cannot_run(graph):
    workflow = json.loads(
        next(Path(__file__).parents[2].glob("example_workflows/*.json")).read_text("utf-8")
    )
    text = refused(workflow)
    assert "a workflow of ComfyUI's page" in text
    assert "Workflow > Export (API)" in text
    assert "no JSON object" in refused([])
    assert "'prompt' has no class_type" in refused({"prompt": graph})
    graph["5"]["inputs"]["model"] = ["77", 0]
    graph["10"]["class_type"] = "VAEDecodr"
    text = refused(graph)
    assert "Node 5 (Flux2EditApplyLoraStack): model is linked to node 77" in text
    assert "Node 10: the server does not know the class VAEDecodr" in text
    assert "It knows VAEDecode." in text


def test_a_preview_saves_nothing(graph):
    graph["11"]["class_type"] = "PreviewImage"
    assert "saves no picture" in refused(graph)
    graph["11"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    assert "saves no picture" in refused(graph)
