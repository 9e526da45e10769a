"""Every kind of LoRA file THROUGH THE NODES: installed in the loras folder, chosen in a LoRA
Stack, applied by Apply LoRA Stack, in a real ComfyUI over HTTP; dev geometry.

``tests/lora_loader/test_exactness.py`` is the same in one process, and klein too.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from host.graph import Graph

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lora_loader"))

from kinds.base import Base  # noqa: E402
from kinds.kind import Built, Kind  # noqa: E402
from kinds.measure import errors, write  # noqa: E402
from kinds.table import all_kinds  # noqa: E402
from kinds.threads import one_thread  # noqa: E402, F401

pytestmark = pytest.mark.host

FOLDER = "lora-kinds"
UNET = f"{FOLDER}.safetensors"
A_PROMPT = 12
"""Kinds in one prompt: a dump is 30 MB, and one prompt's dumps lie on the disk together."""


@pytest.fixture(scope="module")
def weights(server):
    """The model that the kinds were made for, where UNETLoader finds it."""
    base = Base("dev")
    path = server.base / "models" / "diffusion_models" / UNET
    save_file(base.checkpoint(), path)
    yield base
    path.unlink()


def branch(graph: Graph, model: str, number: int, built: Built, names: list[str], kind: Kind):
    """UNETLoader -> LoRA Stack -> Apply LoRA Stack -> dump, one branch of a prompt."""
    slots: dict[str, object] = {}
    for slot in (1, 2, 3):
        if slot > len(built.slots):
            slots[f"lora_{slot}"] = "none"
            continue
        slots[f"lora_{slot}"] = "installed"
        slots[f"lora_{slot}.file"] = names[slot - 1]
        slots[f"lora_{slot}.scale"] = built.slots[slot - 1][1]
        slots[f"lora_{slot}.enabled"] = True
    stack = graph.add("Flux2EditLoraStack", **slots)
    applied = graph.add(
        "Flux2EditApplyLoraStack",
        model=model,
        lora_stack=stack,
        mode="merge",
        on_mismatch="warn" if kind.expect == "unsupported" else "error",
    )
    graph.add("TestDumpPatchedWeights", model=applied, name=f"kind-{number}")


def install(server, number: int, built: Built) -> list[str]:
    """Write a kind's files into the loras folder; their names in the host's list."""
    root = server.base / "models" / "loras"
    files = write(built, root / FOLDER / str(number))
    return [path.relative_to(root).as_posix() for path, _ in files]


WANTED = [kind for kind in all_kinds() if kind.expect != "refused"]
BATCHES = [WANTED[start : start + A_PROMPT] for start in range(0, len(WANTED), A_PROMPT)]


@pytest.mark.parametrize("batch", range(len(BATCHES)))
def test_kinds_are_exact_through_the_nodes(batch, server, client, weights):
    # Two of the kinds are ComfyUI's own training adapters, which are read in this process.
    import inprocess

    inprocess.import_comfy()
    graph, made = Graph(), {}
    model = graph.add("UNETLoader", unet_name=UNET, weight_dtype="default")
    for number, kind in enumerate(BATCHES[batch], start=batch * A_PROMPT):
        built = kind.build(weights)
        branch(graph, model, number, built, install(server, number, built), kind)
        made[number] = kind, built
    result = client.run(graph.prompt)
    assert result.status == "success", f"{result.error}\n{server.log()[-2000:]}"
    wrong = {}
    for number, (kind, built) in made.items():
        path = server.output / f"kind-{number}.safetensors"
        patched = load_file(path)
        path.unlink()
        assert {tensor.dtype for tensor in patched.values()} == {torch.float32}
        changed = {key: tensor - weights.weights[key] for key, tensor in patched.items()}
        worst = max(errors(changed, built.truth).values())
        if worst > kind.tolerance:
            wrong[kind.name] = worst
    assert not wrong, json.dumps(wrong, indent=1)


REFUSED = [kind for kind in all_kinds() if kind.expect == "refused"]


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
def test_a_refusal_reaches_the_user_as_one_error(kind, server, client, weights):
    graph = Graph()
    model = graph.add("UNETLoader", unet_name=UNET, weight_dtype="default")
    built = kind.build(weights)
    branch(graph, model, 999, built, install(server, 999, built), kind)
    result = client.run(graph.prompt)
    assert result.status == "error"
    assert result.error.node_type == "Flux2EditApplyLoraStack"
    message = str(result.error)
    assert any(word in message for word in kind.says.split("|")), message
    assert not (server.output / "kind-999.safetensors").exists()
