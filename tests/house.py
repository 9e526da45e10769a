"""The size of the house: what the product's Python comes to, and what three small jobs enter of it.

``python tests/house.py`` prints the figures as a Markdown table; ``COMFYUI_PATH`` names the host.
Product is every ``*.py`` below ``ROOMS``: no test, script or benchmark, nor the root's module.
"""

import ast
import asyncio
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("flux2", "network", "lora_loader", "remote", "nodes")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCH = (*FUNCTION, ast.Lambda, ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.Assert,
          ast.ExceptHandler, ast.match_case, ast.comprehension)  # fmt: skip
HOOKS = ("define_schema", "execute", "validate_inputs", "fingerprint_inputs")
SCHEMA = re.compile(r"\bio\.(Schema|[\w.]*Input)\b")


@cache
def sources() -> dict[str, str]:
    """Every product file, by its path from the root."""
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def lines(room: str = "") -> int:
    """Lines as ``wc -l`` counts them, of one room or of all."""
    return sum(text.count("\n") for path, text in sources().items() if path.startswith(room))


def fullest_level(room: str) -> int:
    """Modules side by side in the fullest folder of ``room``; ``__init__.py`` is the folder."""
    paths = (Path(path) for path in sources() if path.startswith(f"{room}/"))
    return max(Counter(path.parent for path in paths if path.stem != "__init__").values())


HOSTED = {
    "prompt": "a heron", "mode": "auto", "image_size": "auto", "guidance_scale": 2.5,
    "num_inference_steps": 28, "seed": 1, "output_format": "png", "batch_count": 1,
}  # fmt: skip


class Definition(NamedTuple):
    """A function or class, from its first decorator's ``line`` on, and what it stands in."""

    path: str
    line: int
    name: str
    node: Any
    outer: tuple[Any, ...]


@cache
def definitions() -> list[Definition]:
    """All functions and classes of the product, inner ones too."""

    def inside(path: str, node: ast.AST, outer: tuple[Any, ...]) -> Iterator[Definition]:
        for child in ast.iter_child_nodes(node):
            stack = (*outer, child) if isinstance(child, (*FUNCTION, ast.ClassDef)) else outer
            if stack is not outer:
                line = min(one.lineno for one in (child, *child.decorator_list))
                yield Definition(path, line, ".".join(one.name for one in stack), child, outer)
            yield from inside(path, child, stack)

    return [one for path, text in sources().items() for one in inside(path, ast.parse(text), ())]


def functions() -> list[Definition]:
    """All but those that, by their annotation, return a node's schema or inputs: no logic."""
    every = (one for one in definitions() if isinstance(one.node, FUNCTION))
    return [one for one in every if not SCHEMA.search(ast.unparse(one.node.returns or ast.Pass()))]


def length(one: Definition) -> int:
    """Lines from the first decorator to the end, docstring and inner functions included."""
    return one.node.end_lineno - one.line + 1


def complexity(one: Definition) -> int:
    """Branches and one: McCabe's, inner functions' too, and radon's for words and loops inline."""
    nodes = list(ast.walk(one.node))  # the function itself is the one of "one and its branches"
    words = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    conditions = sum(len(getattr(node, "ifs", ())) for node in nodes)
    return sum(isinstance(node, BRANCH) for node in nodes) + words + conditions


def undocumented() -> list[str]:
    """Public names without a docstring, as ``path name``, but those that a schema describes."""
    found = [path for path, text in sources().items() if not ast.get_docstring(ast.parse(text))]
    for path, _, name, node, outer in definitions():
        bases = map(ast.unparse, getattr(node, "bases", ()))
        described = node.name in HOOKS or "io.ComfyNode" in bases
        private = re.search(r"\b_", name) or any(isinstance(one, FUNCTION) for one in outer)
        if not (described or private or ast.get_docstring(node)):
            found.append(f"{path} {name}")
    return found


def node_class(name: str) -> Any:
    """A node's class by its id, as the host runs it, in no page."""
    from flux2_lora_edit.nodes import comfy_entrypoint

    classes = asyncio.run(asyncio.run(comfy_entrypoint()).get_node_list())
    (cls,) = (cls for cls in classes if cls.__name__ == name)
    return type(name, (cls,), {"hidden": Mock(unique_id=None)})


@contextmanager
def entered() -> Iterator[set[str]]:
    """Collects the product's functions that run inside, as ``module:name``, in all threads.

    A function is a ``def``, an inner one too; lambdas, comprehensions and generator expressions are
    parts of the one they stand in. What builds a schema does not count, nor does a class's body.
    """
    known = {(str(ROOT / one.path), one.line): one for one in functions()}
    codes, names, before = set(), set(), set(threading.enumerate())

    def profile(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield names
        # What nobody waits for (the price) is part of the job too.
        for thread in set(threading.enumerate()) - before:
            thread.join(5 if thread.name == "runcomfy" else 0)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    for code in codes:
        one = known.get((code.co_filename, code.co_firstlineno))
        if one is not None and not code.co_name.startswith("<"):
            module = one.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            names.add(f"{module}:{one.name}")


def tiny_lora() -> bytes:
    """A LoRA file for the tiny model, as diffusers writes it."""
    from safetensors.torch import save

    from host import tiny_loras

    made = tiny_loras.diffusers(double=1, single=1)
    return save({key: value.contiguous() for key, value in made.weights.items()}, made.metadata)


def lora_flow(folder: Path) -> set[str]:
    """LoRA name -> bytes changed: LoRA Stack, Apply with mode auto, and the host patches."""
    import comfy.sd
    import folder_paths
    import torch

    from host import tiny

    stack, apply = node_class("Flux2EditLoraStack"), node_class("Flux2EditApplyLoraStack")
    (folder / "ink.safetensors").write_bytes(tiny_lora())
    model = comfy.sd.load_diffusion_model_state_dict(tiny.transformer("dev", double=1, single=1))
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    slot = {"lora_1": "installed", "file": "ink", "scale": 1.0, "enabled": True}
    loras = {"loras": ([str(folder)], {".safetensors"})}
    at_home = {"folder_names_and_paths": loras, "filename_list_cache": {}}
    with patch.multiple(folder_paths, **at_home), entered() as found:
        changed = apply.execute(model, stack.execute(lora_1=slot).args[0]).args[0]
        changed.patch_model(torch.device("cpu"))
    after = changed.model.state_dict()
    assert sum(not torch.equal(value, after[key]) for key, value in before.items()) == 10
    return found


def hosted_flow(folder: Path) -> set[str]:
    """Prompt -> hosted picture: the RunComfy node against the stand-in, one picture from text."""
    import folder_paths
    from server import PromptServer
    from standin_server import Standin, Timing

    hosted = node_class("Flux2EditRunComfy")
    env = {"HOME": str(folder), "RUNCOMFY_API_TOKEN": "of-the-house"}
    folders = {f"{name}_directory": str(folder / name) for name in ("user", "temp")}
    page = patch.object(PromptServer, "instance", Mock(client_id=None), create=True)
    # Done at the first look: how often it is looked at again would be up to the machine's speed.
    with Standin(timing=Timing(0, 0), picture_side=32) as standin, page:
        at_home = patch.dict(os.environ, {**env, "RUNCOMFY_API_BASE": standin.origin}, clear=True)
        with at_home, patch.multiple(folder_paths, **folders), entered() as found:
            run = hosted.execute(**{name: [value] for name, value in HOSTED.items()})
            (picture,) = asyncio.run(run).args[0]
    assert picture.shape == (1, 32, 32, 3)
    return found


def link_flow(folder: Path) -> set[str]:
    """URL -> file: a link's LoRA from a loopback server, checked and under a loras folder."""
    from loopback import Authority, ranged, serving

    from flux2_lora_edit.lora_loader.sources import Access, UrlSource, fetch
    from flux2_lora_edit.network.address import AddressPolicy
    from flux2_lora_edit.network.client import HttpClient
    from flux2_lora_edit.network.connection import Transport

    authority, body = Authority(), tiny_lora()
    client = HttpClient(transport=Transport(tls=authority.tls))
    with serving(authority) as server:
        server.routes["/ink.safetensors"] = ranged(body)
        source = UrlSource(f"{server.origin}/ink.safetensors")
        with entered() as found:
            policy = AddressPolicy(origins=frozenset({server.origin}))
            access = Access(env={}, policy=policy, client=client, login=lambda: None)
            got = fetch(
                source, [folder], progress=lambda *_: None, should_stop=lambda: None, access=access
            )
    assert got.path.is_relative_to(folder) and got.path.read_bytes() == body
    return found


FLOWS = {"LoRA name to bytes changed": lora_flow, "prompt to hosted picture": hosted_flow,
         "URL to file": link_flow}  # fmt: skip


def flow(name: str) -> tuple[int, list[str]]:
    """The modules and the functions, as ``module:name``, that a flow enters. It needs ComfyUI."""
    with tempfile.TemporaryDirectory() as folder:
        found = sorted(FLOWS[name](Path(folder)))
    return len({function.partition(":")[0] for function in found}), found


def table() -> Iterator[tuple[str, str]]:
    """(what, figure) of all that is measured."""
    yield "product", f"{lines()} lines, {len(sources())} modules"
    for room in ROOMS:
        files, most = sum(path.startswith(room) for path in sources()), fullest_level(room)
        yield room, f"{lines(room)} lines, {files} modules, {most} on its fullest level"
    for name in FLOWS:
        modules, found = flow(name)
        yield name, f"{modules} modules, {len(found)} functions entered"
    for what, of in ("longest function (lines)", length), ("highest complexity", complexity):
        worst = max(functions(), key=of)
        yield what, f"{of(worst)}: {worst.path} {worst.name}"
    yield "public names without a docstring", f"{len(undocumented())}"


if __name__ == "__main__":
    from conftest import import_comfy  # it makes the pack importable, and what lies in scripts/

    import_comfy()
    sys.stdout.write("| What | Figure |\n| --- | --- |\n")
    sys.stdout.writelines(f"| {what} | {figure} |\n" for what, figure in table())
