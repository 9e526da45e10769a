"""The command line: what is refused at once, and the words of it."""

import pytest

from flux2_lora_edit.fleet import hosted
from flux2_lora_edit.fleet.options import parse
from flux2_lora_edit.fleet.rows.plan import Job


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text("{}")
    return str(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "what to run"),
        (["--table", "rows.csv"], "there is no file rows.csv"),
        (["--table", __file__], "is none of .csv, .jsonl, .parquet"),
        (["--folder", "nowhere"], "there is no folder nowhere"),
        (["--grid", "seed=1", "--into", "image"], "--into goes with --folder"),
        (["--grid", "seed=1", "--servers", "0"], "--servers: 1 or more"),
        (["--grid", "seed=1", "--max-cost", "nan"], "--max-cost: 0 or more"),
        (["--grid", "seed=1", "--timeout", "0"], "--timeout: more than 0"),
        (["--grid", "seed=1", "--comfyui", "."], "there is no main.py"),
    ],
)
def test_wrong_options_end_with_a_sentence(graph, options, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        parse(["run", graph, "--out", "out", *options])
    assert caught.value.code == 2 and told in capsys.readouterr().err


def test_what_stands_behind_two_dashes_is_comfyuis(graph):
    options = parse(["run", graph, "--grid", "seed=1", "--out", "o", "--", "--lowvram", "--fast"])
    assert options.comfyui_arguments == ["--lowvram", "--fast"]
    assert parse(["ray", "start", "--head"]).ray == ["start", "--head"]


HOSTED = {"7": {"class_type": "Flux2EditRunComfy", "inputs": {"mode": "auto", "batch_count": 2}}}
PRICES = {"set": True, "prices": {"edit": {"usd": 0.03}, "text to image": {"usd": 0.02}}}


def job(*inputs):
    return Job("a", "key", inputs, (), {}, None)


def test_what_a_hosted_row_costs():
    def cost(*inputs, graph=HOSTED, prices=PRICES):
        return hosted.costs(graph, [job(*inputs)], prices)["a"]

    assert cost() == 0.06, "auto may be either: the dearer one"
    assert cost(("7", "mode", "text to image")) == 0.04
    assert cost(("7", "batch_count", 5)) == 0.15
    limited = hosted.bounded(HOSTED, job(), 0.06)
    assert limited.inputs == (("7", "max_cost", 0.06),)
    linked = {"7": {**HOSTED["7"], "inputs": {"batch_count": ["3", 0]}}}
    with pytest.raises(hosted.Unpriced, match="batch_count"):
        cost(graph=linked)
    with pytest.raises(hosted.Unpriced, match="RUNCOMFY_API_TOKEN"):
        cost(prices={"set": False, "prices": {}})
    usd = {"a": 0.06, "b": 0.06}
    assert "$0.120 at most" in hosted.in_words(usd) and hosted.in_words({}) == "nothing is paid"
    with pytest.raises(hosted.Unpriced, match="--max-cost 0.120"):
        hosted.check_limit(usd, None)
    hosted.check_limit(usd, 0.0)
    hosted.check_limit({}, None)
    with pytest.raises(hosted.Unpriced, match="states no price"):
        cost(prices={"set": True, "prices": {"edit": {"usd": None}}})
