"""Jobs from rows: what each cell becomes, in which order, and what is said of bad ones."""

import copy
import json
import os
import random
from pathlib import Path

import pytest

from flux2_lora_edit.fleet.rows.plan import Refused, chunks, make_plan, weight_changes
from flux2_lora_edit.fleet.rows.table import Row, cross

CASE = json.loads(Path(__file__).with_name("edit.json").read_text("utf-8"))
FILE, SCALE = "LoRA Stack.lora_1.file", "LoRA Stack.lora_1.scale"


@pytest.fixture
def graph():
    return copy.deepcopy(CASE["graph"])


def plan(graph, *rows, folder=Path("/nowhere"), **settings):
    named = [row if isinstance(row, Row) else Row(f"r{n}", row) for n, row in enumerate(rows)]
    return make_plan(graph, CASE["info"], named, folder, **settings)


def problems(graph, *rows, **settings):
    with pytest.raises(Refused) as caught:
        plan(graph, *rows, **settings)
    return caught.value.problems


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("steps", "7", 7), ("steps", " 7.0 ", 7), ("steps", 7.0, 7), ("steps", "+7", 7),
        ("seed", str(2**64 - 1), 2**64 - 1), ("seed", 2**64 - 1, 2**64 - 1), ("seed", "-0", 0),
        ("guidance", "0.5", 0.5), ("guidance", ".5", 0.5), ("guidance", "1e0", 1.0),
        ("guidance", 2, 2.0), (SCALE, "-4", -4.0),
        ("swap", "true", True), ("swap", "No", False), ("swap", 1, True), ("swap", "0", False),
        ("prompt", "  a heron\n", "  a heron\n"), ("prompt", 7, "7"), ("prompt", True, "true"),
        ("prompt", "*?", "*?"),
        ("sampler_name", " euler ", "euler"),
        (FILE, "styles\\ink.safetensors", "styles/ink.safetensors"),
        ("LoRA Stack.lora_3", "none", "none"),
        # A combo of the inputs: no such file here, but the server has it.
        ("image", "example.png", "example.png"),
    ],
)  # fmt: skip
def test_what_a_cell_becomes(graph, column, value, expected):
    ((_, _, found),) = plan(graph, {column: value}).jobs[0].inputs
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("steps", "1e3", "'1e3' is no whole number. It takes whole numbers from 1 to 100."),
        ("steps", "7.5", "is no whole number"),
        ("steps", 7.5, "is no whole number"),
        ("steps", True, "is no whole number"),
        ("steps", "1_0", "is no whole number"),
        ("steps", "٣", "is no whole number"),
        ("steps", "0", "'0' is below 1."),
        ("seed", "-1", "is below 0."),
        ("seed", str(2**64), "is above 18,446,744,073,709,551,615."),
        ("seed", "9" * 5000, "is above 18,446,744,073,709,551,615."),
        ("seed", "-" + "9" * 5000, "is below 0."),
        ("seed", float(2**60), "is a rounded number."),
        ("seed", float("nan"), "is no finite number"),
        ("guidance", "0,5", "is no number. Write 0.5."),
        ("guidance", "nan", "is no number"),
        ("guidance", "1_0", "is no number"),
        ("guidance", float("nan"), "is no finite number"),
        ("guidance", float("inf"), "is no finite number"),
        ("guidance", "1e999", "is no finite number"),
        ("guidance", 10**400, "is no finite number"),
        (SCALE, "4.5", "is above 4"),
        ("swap", "maybe", "is neither true nor false"),
        ("swap", 2, "is neither true nor false"),
        ("prompt", ["a"], "['a'] is no text, number, true or false"),
        ("prompt", "\ud800", "half a character"),
        ("sampler_name", "eulr", "is none of its options. Near it: 'euler'"),
        (FILE, "ckpt-400.safetensors", "is none of its options. Near it: 'ckpt-"),
        (FILE, "kpt-*", "matches none of its options"),
        ("image", "nope.png", f"No such file: {os.sep}nowhere{os.sep}nope.png"),
        ("image", "\0.png", "is a picture that is not there"),
        ("LoRA Stack.lora_1", "instaled", "is none of its options. Near it: 'installed'"),
    ],
)
def test_what_a_cell_cannot_be(graph, column, value, said):
    (problem,) = problems(graph, {column: value})
    assert problem.startswith(f"{column}: in 1 row (r0) ")
    assert said in problem


def test_what_stands_under_a_choice(graph):
    slot = "LoRA Stack.lora_3"
    rows = [{slot: "url", f"{slot}.url": "https://x", f"{slot}.scale": "0.5"}]
    assert plan(graph, *rows).jobs[0].inputs == (
        ("4", "lora_3", "url"), ("4", "lora_3.scale", 0.5), ("4", "lora_3.url", "https://x"),
    )  # fmt: skip
    (problem,) = problems(graph, {f"{slot}.scale": "1"})
    assert "has no place, because lora_3 is 'none'" in problem
    assert "Set FLUX.2 LoRA Stack.lora_3 to 'installed' or 'hugging face' or 'url'" in problem
    (problem,) = problems(graph, {slot: "installed"})
    assert problem.endswith("needs lora_3.file too. Add a column FLUX.2 LoRA Stack.lora_3.file.")
    # A choice that is wrong is one fault, and not one of each cell under it.
    (problem,) = problems(graph, {slot: "uri", f"{slot}.url": "https://x"})
    assert "'uri' is none of its options" in problem


def test_a_choice_under_a_choice(graph):
    def choice(**options):
        return {"options": [
            {"key": key, "inputs": {"required": inputs}} for key, inputs in options.items()
        ]}  # fmt: skip

    dynamic, number = "COMFY_DYNAMICCOMBO_V3", {"width": ["INT", {"min": 1}]}
    inner = [dynamic, choice(exact=number, ratio={"by": ["FLOAT", {"max": 2}]})]
    outer = [dynamic, choice(keep={}, change={"how": inner})]
    info = {**CASE["info"], "Deep": {"input": {"required": {"size": outer}}, "output": []}}
    graph["12"] = {"class_type": "Deep", "inputs": {"size": "keep", "size.how": "ratio"}}
    deep = {"12.size": "change", "12.size.how": "exact", "12.size.how.width": "3"}

    def made(**values):
        rows = [Row("x", {name: value for name, value in values.items() if value})]
        return make_plan(graph, info, rows, Path("/"))

    assert made(**deep).jobs[0].inputs == (
        ("12", "size", "change"), ("12", "size.how", "exact"), ("12", "size.how.width", 3),
    )  # fmt: skip
    with pytest.raises(Refused, match="no place, because size.how is 'ratio'.*to 'exact' in"):
        made(**deep | {"12.size.how": None})
    with pytest.raises(Refused, match="no place, because size is 'keep'.*to 'change' in"):
        made(**deep | {"12.size": None})


def test_a_picture_is_found_beside_the_table(graph, tmp_path):
    (tmp_path / "a.PNG").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "b.png").mkdir()
    (job,) = plan(graph, {"image": "a.PNG", "seed": 3}, folder=tmp_path).jobs
    assert job.pictures == (("6", "image", str(tmp_path / "a.PNG")),)
    assert job.inputs == (("9", "seed", 3),)
    assert job.labels == {"image": "a.PNG", "seed": "3"}
    (absolute,) = plan(graph, {"image": str(tmp_path / "a.PNG")}, folder=Path("/")).jobs
    assert (absolute.pictures, absolute.labels) == (job.pictures, {"image": "a.PNG"})
    assert (
        "'notes.txt' is no picture" in problems(graph, {"image": "notes.txt"}, folder=tmp_path)[0]
    )
    assert "is a folder" in problems(graph, {"image": "b.png"}, folder=tmp_path)[0]


def test_a_key_is_of_what_makes_the_pictures(graph, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"x")

    def key(row_id="r", folder=tmp_path, **values):
        return plan(graph, Row(row_id, {"image": "a.png", **values}), folder=folder).jobs[0].key

    first = key()
    os.utime(picture, ns=(1, picture.stat().st_mtime_ns))
    assert key() == first == key("other")
    assert first == key(image=str(picture))
    graph["9"]["_meta"] = {"title": "renamed"}
    assert key() == first
    keys = {first, key(seed="1"), key(seed="2"), key(prompt="2")}
    os.utime(picture, ns=(1, 1))
    keys.add(key())
    picture.write_bytes(b"xy")
    os.utime(picture, ns=(1, 1))
    keys.add(key())
    graph["9"]["inputs"]["steps"] = 3
    keys.add(key())
    assert len(keys) == 7


def test_a_pattern_is_a_job_for_each_file_that_it_matches(graph):
    first = CASE["info"]["Flux2EditLoraStack"]["input"]["optional"]["lora_1"][1]["options"][1]
    assert "choose a LoRA" in first["inputs"]["required"]["file"][1]["options"]
    jobs = plan(graph, Row("cat", {FILE: "*", "seed": "1"})).jobs
    assert {(job.id, job.inputs[0][2], job.labels[FILE]) for job in jobs} == {
        (f"cat-{name}", file, file)
        for name, file in (
            ("ckpt-100", "ckpt-100.safetensors"),
            ("ckpt-200", "ckpt-200.safetensors"),
            ("ckpt-300", "ckpt-300.safetensors"),
            ("ink", "styles/ink.safetensors"),
        )
    }
    rows = cross([], [f"{FILE}=ckpt-?00*", "unet_name=flux2-*", "seed=1,2"])
    jobs = plan(graph, *rows).jobs
    assert len(jobs) == 12
    assert "seed2-flux2-klein-ckpt-300" in {job.id for job in jobs}
    assert [job.id for job in plan(graph, *rows).jobs] == [job.id for job in jobs]
    assert "already" in problems(graph, Row("a-ckpt-100", {}), Row("a", {FILE: "ckpt-1*"}))[0]


def test_the_seed_of_a_job(graph):
    jobs = plan(graph, {"prompt": "x"}, {"seed": "5"}).jobs
    assert {job.id: job.seed for job in jobs} == {
        "r0": 1, "r1": 5,
    }  # fmt: skip
    graph["12"] = {"class_type": "PrimitiveInt", "inputs": {"value": 7}}
    graph["9"]["inputs"]["seed"] = ["12", 0]
    assert plan(graph, {"prompt": "x"}).jobs[0].seed is None
    del graph["9"]["inputs"]["seed"]
    assert plan(graph, {"prompt": "x"}).jobs[0].seed == 0  # the schema's own


def test_what_python_calls_equal_a_table_does_not(graph):
    rows = [{"steps": 1}, {"steps": 1.0}, {"steps": True}]
    (problem,) = problems(graph, *rows)
    assert problem.startswith("steps: in 1 row (r2) True is no whole number")


def test_a_server_with_the_other_slash(graph):
    info = copy.deepcopy(CASE["info"])
    info["UNETLoader"]["input"]["required"]["unet_name"][0] = ["dev\\a.gguf", "b.gguf"]
    (job,) = make_plan(graph, info, [Row("a", {"unet_name": "dev/a.gguf"})], Path("/")).jobs
    assert job.inputs == (("1", "unet_name", "dev\\a.gguf"),)
    jobs = make_plan(graph, info, [Row("a", {"unet_name": "*"})], Path("/")).jobs
    assert sorted(job.id for job in jobs) == ["a-a", "a-b"]


@pytest.fixture
def hosted():
    return {
        "1": {"class_type": "Flux2EditRunComfy", "inputs": {"prompt": "x", "seed": -1}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


@pytest.mark.parametrize("own", [-1, None, "left out"])
def test_a_hosted_node_never_draws_its_seed(hosted, own):
    hosted["1"]["inputs"]["seed"] = own
    if own == "left out":
        del hosted["1"]["inputs"]["seed"]
    rows = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b", "seed": "-1"}]
    jobs = plan(hosted, *rows).jobs
    seeds = [job.seed for job in jobs]
    assert len({*seeds}) == len({job.key for job in jobs}) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert [dict((name, value) for _, name, value in job.inputs)["seed"] for job in jobs] == seeds
    assert plan(hosted, *rows).jobs == jobs


def test_a_hosted_seed_that_is_said_stays(hosted):
    assert plan(hosted, {"seed": "7"}).jobs[0].inputs == (("1", "seed", 7),)
    hosted["1"]["inputs"]["seed"] = 0
    job = plan(hosted, {"prompt": "a"}).jobs[0]
    assert (job.inputs, job.seed) == ((("1", "prompt", "a"),), 0)


def test_rows_are_ordered_so_that_weights_change_seldom(graph):
    rows = cross([], ["seed=10,9", "prompt=b,a", f"{SCALE}=1,0.5,-1", "unet_name=flux2-*"])
    random.Random(1).shuffle(rows)
    made = plan(graph, *rows)
    assert made.weights == {("1", "unet_name"), ("4", "lora_1.scale")}
    assert weight_changes(made.jobs, made.weights) == 5
    seen = [tuple(value for _, _, value in job.inputs) for job in made.jobs]
    # By address: unet_name, scale, prompt, seed; each sorted, numbers as numbers.
    assert seen == sorted(seen)
    assert [one[1] for one in seen[::4]] == [-1, 0.5, 1] * 2


def test_equal_rows_stay_in_the_tables_order(graph):
    rows = [Row(name, {"seed": "1"}) for name in "dbca"]
    rows.insert(2, Row("x", {"prompt": "q"}))
    # What a row leaves to the graph counts as the graph's own value, which is 1 too.
    assert [job.id for job in plan(graph, *rows).jobs] == ["d", "b", "c", "a", "x"]


def test_what_feeds_a_loader_is_a_weight_too(graph):
    graph["12"] = {"class_type": "PrimitiveInt", "inputs": {"value": 7}}
    graph["4"]["inputs"]["lora_1.scale"] = ["12", 0]
    made = plan(graph, {"12.value": "1", "7.prompt": "x"})
    assert made.weights == {("12", "value")}


@pytest.mark.parametrize(
    ("groups", "most", "sizes"),
    [
        ([4, 4, 4], 8, [8, 4]),
        ([3, 3, 3], 8, [6, 3]),
        ([20], 8, [7, 7, 6]),
        ([2, 17, 3], 8, [2, 6, 6, 8]),
        ([1] * 5, 2, [2, 2, 1]),
        ([3, 1], 1, [1, 1, 1, 1]),
        ([], 8, []),
    ],
)
def test_chunks_keep_weights_together(graph, groups, most, sizes):
    count = iter(range(1000))
    rows = [
        {SCALE: n / 100, "seed": next(count)} for n, size in enumerate(groups) for _ in range(size)
    ]
    made = plan(graph, *rows, most=most) if rows else None
    jobs, weights = (made.jobs, made.weights) if made else ([], frozenset())
    found = made.chunks if made else chunks(jobs, weights, most)
    assert [len(jobs[one]) for one in found] == sizes
    assert [job for one in found for job in jobs[one]] == jobs


def test_all_problems_of_all_rows_are_a_readable_text(graph):
    rows = [
        {"seed": f"{n}e3", "steps": n + 101, FILE: f"x{n}", "image": f"{n}.png", "prompt": "a"}
        for n in range(1000)
    ]
    found = problems(graph, *rows, {"seed": "-1", "nothing": "x"}, Row("a/b", {}))
    assert len(found) == 7
    assert found[0].startswith("Column 'nothing': no node")
    assert found[1].startswith("1 id is no safe file name: 'a/b' (row 1002)")
    assert (
        "seed: in 1,000 rows (r0, r1, r2, ...) '0e3' is no whole number. It takes whole numbers "
        "from 0 to 18,446,744,073,709,551,615."
    ) in found
    many = problems(graph, *({f"x{n}": 1} for n in range(100)))
    assert len(many) <= 40
    assert many[-1] == "And 64 more like these."
    assert problems(graph)[0] == "There is no row to run."


def test_a_labels_text_is_what_the_table_says(graph):
    values = {"seed": 7, "swap": True, "guidance": "0.50"}
    (job,) = plan(graph, values).jobs
    assert job.labels == {"seed": "7", "swap": "true", "guidance": "0.50"}


def test_what_the_graph_itself_sets_is_checked_too(graph):
    """A graph of another machine: its model is not here, and no row says which to take."""
    (loader,) = [node for node in graph.values() if "unet_name" in node["inputs"]]
    loader["inputs"]["unet_name"] = "of-another-machine.safetensors"
    (problem,) = problems(graph, {"seed": 1}, {"seed": 2})
    assert "unet_name 'of-another-machine.safetensors' is none of its options" in problem
    options = CASE["info"][loader["class_type"]]["input"]["required"]["unet_name"]
    here = (options[0] if isinstance(options[0], list) else options[1]["options"])[0]
    assert plan(graph, {"unet_name": here}, {"unet_name": here}).jobs
    assert problems(graph, {"unet_name": here}, {"seed": 2}), "one row leaves it"
    loader["inputs"]["unet_name"] = here
    (sampler,) = [node for node in graph.values() if "steps" in node["inputs"]]
    sampler["inputs"]["steps"] = 10**9
    (problem,) = problems(graph, {"seed": 1})
    assert "the graph's own steps 1000000000 is above" in problem
