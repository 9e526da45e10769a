"""Whatever people do with a workflow, it comes out saying the same.

On the pinned frontend and on the newest of PyPI, on the classic canvas and in Nodes 2.0.
"""

import json
import os
from pathlib import Path

import pytest
from browser.hand import note_change, redo, undo
from small_edit import STACK, small_edit
from whole_graph import bare, meaning, whole_graph

from host.client import PromptRefused

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
WORKFLOWS = sorted(path for path in FIXTURES.glob("*/*.json") if not path.stem.endswith(".api"))
NODES = 12


@pytest.fixture
def opened(any_page):
    any_page.load_api(whole_graph())
    return any_page


def test_the_whole_graph_holds_every_node(client):
    used = {entry["class_type"] for entry in whole_graph().values()}
    ours = {name for name in client.get("/object_info") if name.startswith("Flux2Edit")}
    assert len(ours) == NODES and ours <= used


def test_export_save_and_open_again(opened):
    assert bare(opened.export_api()) == whole_graph()
    saved = opened.serialize()
    opened.load(saved)
    exported = opened.export_api()
    assert bare(exported) == whole_graph()
    again = opened.serialize()
    for one, other in zip(saved["nodes"], again["nodes"], strict=True):
        assert (one.get("widgets_values") or []) == (other.get("widgets_values") or []), one["type"]
    opened.load_api(exported)
    assert opened.export_api() == exported


def test_copy_and_paste(opened):
    opened.js(
        """() => {
            const canvas = app.canvas
            canvas.selectItems?.(app.graph._nodes) ?? canvas.selectNodes(app.graph._nodes)
            canvas.copyToClipboard()
            canvas.pasteFromClipboard({ connectInputs: false })
        }"""
    )
    opened.settle()
    twice = meaning(opened.export_api())
    assert twice == meaning(whole_graph()) + meaning(whole_graph())


def test_undo_and_redo(opened):
    note_change(opened)
    opened.js(
        """() => {
            for (const node of app.graph._nodes) {
                for (const [name, value] of [['lora_1', 'url'], ['lora_3', 'none'], ['steps', 9]]) {
                    const widget = node.widgets?.find(w => w.name === name)
                    if (widget) { widget.value = value; widget.callback?.(value) }
                }
            }
        }"""
    )
    note_change(opened)
    changed = bare(opened.export_api())
    assert changed != whole_graph()
    undo(opened)
    assert bare(opened.export_api()) == whole_graph()
    redo(opened)
    assert bare(opened.export_api()) == changed


def test_into_a_subgraph_and_out_again(opened, client, token):
    opened.js(
        """() => {
            const kinds = new Set(['LoadImage', 'SaveImage', 'PreviewAny'])
            const inside = app.graph._nodes.filter(n => !kinds.has(n.type))
            app.graph.convertToSubgraph(new Set(inside))
        }"""
    )
    opened.settle()
    boxed = opened.export_api()
    assert meaning(boxed) == meaning(whole_graph())
    assert sum(":" in node for node in boxed) == len(boxed) - 8, "most nodes are inside"
    saved = opened.serialize()
    assert len(saved["nodes"]) == 9 and saved["definitions"]["subgraphs"]
    opened.load(saved)
    assert meaning(opened.export_api()) == meaning(whole_graph())
    opened.js("() => app.graph.unpackSubgraph(app.graph._nodes.find(n => n.isSubgraphNode?.()))")
    opened.settle()
    assert meaning(opened.export_api()) == meaning(whole_graph())
    # Frontend 1.47 logs this of any output with two links to the outside, and keeps both.
    opened.errors[:] = [e for e in opened.errors if "Missing Link ID when unpacking" not in e]


def test_the_whole_graph_runs(client, token):
    result = client.run(whole_graph()).check()
    saves = {node: result.images(node) for node in result.outputs}
    assert sum(len(images) for node, images in saves.items() if images) >= 4


# --- workflows that are out in the world: never change a file of tests/fixtures


def test_there_are_frozen_workflows():
    assert [path.stem for path in WORKFLOWS], "tests/fixtures holds what earlier releases wrote"
    assert all(path.with_suffix(".api.json").is_file() for path in WORKFLOWS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_frozen_workflow_means_what_it_meant(path, any_page, client):
    frozen = json.loads(path.with_suffix(".api.json").read_text("utf-8"))
    any_page.load(json.loads(path.read_text("utf-8")))
    exported = bare(any_page.export_api())
    assert exported.keys() == frozen.keys()
    for node, entry in frozen.items():
        # Inputs may be added by later releases, at their defaults; none may go or change.
        now = exported[node]["inputs"]
        assert entry["inputs"].items() <= now.items(), entry["class_type"]
        options = client.object_info(entry["class_type"])["input"].get("optional", {})
        for name in now.keys() - entry["inputs"].keys():
            assert now[name] == options[name][1]["default"], f"{entry['class_type']}.{name}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_frozen_prompt_runs(path, client, token):
    frozen = json.loads(path.with_suffix(".api.json").read_text("utf-8"))
    assert client.run(frozen).check().images()


if os.environ.get("FREEZE"):  # when releasing: FREEZE=0.2.0 ./scripts/test tests/browser -k freeze

    def test_freeze(classic):
        folder = FIXTURES / os.environ["FREEZE"]
        folder.mkdir(parents=True)
        classic.load_api(whole_graph())
        contents = {"everything": classic.serialize(), "everything.api": whole_graph()}
        for name, content in contents.items():
            (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


# --- a workflow from a machine with other files


def test_a_missing_lora_is_named_with_the_near_ones(page, client):
    missing = {
        "styles\\ai-tolkit.safetensors": "ai-toolkit.safetensors",
        "difusers.safetensors": "diffusers.safetensors",
    }
    for named, near in missing.items():
        prompt = small_edit(loras=[("kohya.safetensors", 1.0), (named, 0.5)])
        page.load_api(prompt)
        page.load(page.serialize())
        exported = page.export_api()
        assert exported[str(STACK)]["inputs"]["lora_2.file"] == named, "the name is not lost"
        with pytest.raises(PromptRefused) as refused:
            client.queue(exported)
        said = "\n".join(refused.value.details(str(STACK)))
        assert "LoRA slot 2" in said and near in said


def test_a_file_is_found_under_the_other_slash_and_by_its_name_alone(client):
    prompt = small_edit(loras=[("elsewhere\\styles\\ai-toolkit.safetensors", 1.0)])
    assert client.run(prompt).check().images()
