"""The command that tries this pack beside others: its verdicts, its page, and one real run."""

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

STACKER = """
class Stacker:
    RETURN_TYPES, FUNCTION, CATEGORY = ("LORA_STACK",), "make", "stand-in"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"scale": ("FLOAT", {"default": 1.0})}}

    def make(self, scale):
        return ([("ai-toolkit.safetensors", scale, scale)],)


NODE_CLASS_MAPPINGS = {"StandInStacker": Stacker}
"""


@pytest.fixture(scope="module")
def packs():
    """The module of the command; it imports its neighbours as the command does."""
    before = list(sys.path)
    sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    yield importlib.import_module("packs")
    sys.path[:] = before


@pytest.fixture(scope="module")
def cases(packs):
    return importlib.import_module("pack_cases")


@pytest.fixture(scope="module")
def hosts(packs):
    return importlib.import_module("pack_host")


@pytest.fixture
def folder(tmp_path):
    """Two fetched packs: one that stacks, one that cannot be imported; a third is only listed."""
    for name, text in (("stacker", STACKER), ("broken", "import nothing_like_it")):
        (tmp_path / f"somebody__{name}").mkdir()
        (tmp_path / f"somebody__{name}" / "__init__.py").write_text(text)
    names = ("somebody/stacker 1111111111111", "somebody/broken 2222222222222", "gone/away 3333333")
    (tmp_path / "COMMITS.txt").write_text("\n".join(names))
    return tmp_path


def test_only_what_was_fetched_is_a_pack(packs, folder):
    found = packs.read_packs(folder)
    assert [(pack.name, pack.repository, pack.commit[:3]) for pack in found] == [
        ("somebody/stacker", "stacker", "111"), ("somebody/broken", "broken", "222"),
    ]  # fmt: skip


def judged(packs, cases, hosts, *, got=None, stopped=None, words="", plain=True):
    """The row of a case whose truth is 1 and whose plain latent is 0."""
    truth, zero = torch.ones(1, 4), torch.zeros(1, 4)
    names = {"truth": truth, "plain": zero}
    host = SimpleNamespace(forget=lambda: None, once=lambda build: names[build])

    def step(_):
        if stopped:
            raise hosts.Stopped(stopped, "no", words)
        return hosts.Run(got, words)

    case = cases.Case("somebody/pack", "a case", (step,), "truth", "plain" if plain else None)
    return packs.row(case, host, host)


def test_verdicts(packs, cases, hosts):
    near, far = torch.full((1, 4), 1.0001), torch.full((1, 4), 1.5)

    def verdict(**what):
        return judged(packs, cases, hosts, **what).verdict

    assert verdict(got=near) == packs.OK
    assert verdict(got=near, plain=False) == packs.WRONG
    assert verdict(got=torch.ones(1, 4), plain=False) == packs.OK
    assert verdict(got=far) == packs.WRONG
    assert verdict(got=torch.full((1, 4), float("nan"))) == packs.WRONG
    assert verdict(got=far, words="merge instead") == packs.SAID
    assert verdict(got=torch.ones(1, 8)) == packs.WRONG
    assert verdict(stopped="Flux2EditApplyLoraStack") == packs.REFUSED
    assert verdict(stopped="TheirLoader") == packs.WRONG
    assert verdict(stopped="TheirLoader", words="put Download LoRAs between") == packs.SAID
    assert judged(packs, cases, hosts, got=far).error == "5.0e-01"


def test_the_page(packs, folder):
    rows = [
        packs.Row("somebody/stacker", "first", "1.0e-07", packs.OK),
        packs.Row("somebody/stacker", "second", "", packs.REFUSED, "a | b\n" + "c" * 500),
    ]
    text = packs.table(rows, packs.read_packs(folder), {"somebody/stacker": "yes"}, "ComfyUI 0.")
    assert "| somebody/stacker | first | 1.0e-07 | ok |  |" in text
    assert "2 cases: 1 ok, 1 refused, 0 wrong, said so" in text
    assert "`222222222222` | not tried |" in text
    (second,) = (line for line in text.splitlines() if "| second |" in line)
    assert second.count(" | ") == 4 and len(second) < 320


def test_every_pack_of_a_case_is_named_as_its_repository_is(cases):
    named = {case.pack for case in cases.cases()} - {cases.CORE, cases.ALL}
    assert len(named) >= 10
    assert all(len(name.split("/")) == 2 for name in named)
    assert len({(case.pack, case.name) for case in cases.cases()}) == len(cases.cases())


@pytest.mark.host
def test_a_pack_of_our_own_beside_this_one(packs, cases, folder):
    comfyui = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (comfyui / "main.py").is_file():
        pytest.skip("COMFYUI_PATH names no ComfyUI; run ./scripts/test, which sets one up")

    def theirs(graph, model):
        return cases.apply(graph, model, graph.add("StandInStacker", scale=0.8))

    def stock(graph, model):
        return cases.stock_loras(graph, model, (0.8,))

    steps = (cases.ran(cases.drawn(loras=theirs)),)
    case = cases.Case(cases.ALL, "a stack", steps, cases.drawn(loras=stock), cases.PLAIN)
    wanted = {cases.CORE: [], cases.ALL: [case]}
    (row,), imported = packs.measure(packs.read_packs(folder), wanted, comfyui, None)
    assert row.verdict == packs.OK, row
    assert imported["somebody/stacker"] == "yes"
    assert "No module named 'nothing_like_it'" in imported["somebody/broken"]
