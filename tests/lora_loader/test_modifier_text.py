"""What users write of schedules, pictures, blocks: read exactly, or refused where it is wrong."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flux2_lora_edit.flux2.variants import RELEASED, Flux2Model
from flux2_lora_edit.lora_loader.modifiers.blocks import Blocks
from flux2_lora_edit.lora_loader.modifiers.schedule import BETWEEN, CLOCKS, Schedule
from flux2_lora_edit.lora_loader.modifiers.text import (
    ModifierError,
    parse_blocks,
    parse_pictures,
    parse_schedule,
)
from flux2_lora_edit.lora_loader.stack import LoraEntry, modified

DEV, KLEIN_9B, KLEIN_4B = RELEASED
TINY = Flux2Model(None, 64, 2, 3, False)
EVERY = 10_000  # stands for the last block
DIGITS = "9" * 100_000


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("0:1", [(0, 1)]),
        ("0:1, 0.5:0.8, 1:0", [(0, 1), (0.5, 0.8), (1, 0)]),
        ("  0 : 1 ,1 :\t0 ", [(0, 1), (1, 0)]),
        ("0:1\n0.5:2\r\n1:0\n", [(0, 1), (0.5, 2), (1, 0)]),
        ("0:1,\n0.5:2,\n\n1:0,", [(0, 1), (0.5, 2), (1, 0)]),
        ("0:1\n, 1:0", [(0, 1), (1, 0)]),
        (".5:.5, 1.:+1.", [(0.5, 0.5), (1, 1)]),
        ("0:-10, -0:10", [(0, -10), (0, 10)]),
        ("0:1, 0.5:1, 0.5:0", [(0, 1), (0.5, 1), (0.5, 0)]),
        (", ".join(["0:1"] * 100), [(0, 1)] * 100),
    ],
)
def test_a_schedule_that_is_read(text, pairs):
    assert parse_schedule(text) == tuple(pairs)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("0.5;0.2", 1, "“0.5;0.2”: write it like 0:1, 0.5:0.8, 1:0"),
        ("0:1, 1:2:3", 6, "“1:2:3”: write it like"),
        ("0:1,\n  0.5:1,\n0.25:0", 15, "“0.25”: 0.5 comes before it, and moments only rise"),
        ("0:1, 1.5:1", 6, "“1.5”: a moment is from 0 to 1"),
        ("-0.1:1", 1, "“-0.1”: a moment is from 0 to 1"),
        ("0:11", 3, "“11”: a multiplier is from -10 to 10"),
        ("0:1, 1 : -10.01", 10, "“-10.01”: a multiplier is from -10 to 10"),
        ("0:nan", 1, "“0:nan”: write it like"),
        ("0:inf", 1, "“0:inf”: write it like"),
        ("0:1e3", 1, "“0:1e3”: write it like"),
        ("٠:١", 1, "“٠:١”: write it like"),
        ("0:１", 1, "“0:１”: write it like"),
        ("0：1", 1, "“0：1”: write it like"),
        ("0:", 1, "“0:”: write it like"),
        (":1", 1, "“:1”: write it like"),
        ("0:.", 1, "“0:.”: write it like"),
        ("0 1", 1, "“0 1”: write it like"),
        ("0:1 1:0", 1, "“0:1 1:0”: write it like"),
        ("0:1,,1:0", 5, "nothing stands before this comma"),
        (",0:1", 1, "nothing stands before this comma"),
        ("0:1, 1:0, ,", 11, "nothing stands before this comma"),
        (f"0:{DIGITS}", 3, "a multiplier is from -10 to 10"),
        (f"{DIGITS}x", 1, "write it like"),
        (f"0:{' ' * 4000}x", 1, "write it like"),
    ],
)
def test_a_schedule_that_is_refused(text, position, words):
    with pytest.raises(ModifierError) as refused:
        parse_schedule(text)
    assert str(refused.value).startswith(f"schedule, position {position}: ")
    assert words in str(refused.value) and len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "schedule is empty. Write 0:1"),
        (" \n ", "schedule is empty. Write 0:1"),
        (", ".join(["0:1"] * 101), "schedule has 101 items; 100 is the most."),
        ("1" * 10**6 + ",", "schedule, position 1: “1"),
    ],
)
def test_a_schedule_that_is_nothing_or_too_much(text, words):
    with pytest.raises(ModifierError) as refused:
        parse_schedule(text)
    assert words in str(refused.value) and len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        (" ", []),
        ("1", [1]),
        ("0, 0.5, 1, 1.5", [0, 0.5, 1, 1.5]),
        ("-1\n+2\n.5,", [-1, 2, 0.5]),
    ],
)
def test_pictures_that_are_read(text, numbers):
    assert parse_pictures(text) == tuple(numbers)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("0 0.5", 1, "“0 0.5”: write it like 0, 0.5, 1, 1.5"),
        ("0, 0.5, 10.5", 9, "“10.5”: a multiplier is from -10 to 10"),
        ("0,, 1", 3, "nothing stands before this comma"),
        ("0:1", 1, "“0:1”: write it like 0, 0.5, 1, 1.5"),
        ("1, ²", 4, "“²”: write it like"),
    ],
)
def test_pictures_that_are_refused(text, position, words):
    with pytest.raises(ModifierError) as refused:
        parse_pictures(text)
    assert str(refused.value).startswith(f"pictures, position {position}: ")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", []),
        ("single=0", [("single", 0, EVERY, 0)]),
        (
            "double 0-3=0.5, single=0, other=1",
            [("double", 0, 3, 0.5), ("single", 0, EVERY, 0), ("other", 0, EVERY, 1)],
        ),
        ("Double3 = -1\nSINGLE 2 - 4=.5,", [("double", 3, 3, -1), ("single", 2, 4, 0.5)]),
        ("1, 0.5, -1", [("vector", 0, 0, 1), ("vector", 1, 1, 0.5), ("vector", 2, 2, -1)]),
    ],
)
def test_blocks_that_are_read(text, rules):
    assert parse_blocks(text) == tuple(rules)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("single=0, double 3-1=1", 18, "“3-1”: the range runs backwards"),
        ("other 2=1", 7, "“2”: other has no numbers"),
        ("double 0-3=10.5", 12, "“10.5”: a multiplier is from -10 to 10"),
        ("doubles=1", 1, "“doubles=1”: write it like double 0-3=0.5, single=0, other=1"),
        ("single=0, 1", 11, "“1”: write it like"),
        ("double -1=0", 1, "“double -1=0”: write it like"),
        ("double 1 2=0", 1, "“double 1 2=0”: write it like"),
        ("double 1.5=0", 1, "“double 1.5=0”: write it like"),
        ("double ٣=0", 1, "“double ٣=0”: write it like"),
        ("ſingle=0", 1, "“ſingle=0”: write it like"),  # the long s is an s to re.IGNORECASE
        ("double=nan", 1, "“double=nan”: write it like"),
        ("1, 2, x", 7, "“x”: write it like double 0-3=0.5, single=0, other=1"),
        ("1,,1", 3, "nothing stands before this comma"),
        (f"double {DIGITS}=1", 1, "write it like"),
        (f"double 0-{DIGITS}=1", 1, "write it like"),
        ("double 10000=1", 1, "write it like"),
    ],
)
def test_blocks_that_are_refused(text, position, words):
    with pytest.raises(ModifierError) as refused:
        parse_blocks(text)
    assert str(refused.value).startswith(f"blocks, position {position}: ")
    assert words in str(refused.value) and len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "model", "words"),
    [
        ("double 9=1", DEV, "double block 9; FLUX.2 dev (width 6144) has double blocks 0 to 7."),
        ("double 5-9=1", KLEIN_4B, "double block 9; FLUX.2 klein 4B (width 3072) has double"),
        ("other=0, single 24=0", KLEIN_9B, "single block 24; FLUX.2 klein 9B (width 4096) has"),
        ("double 9999=1", TINY, "double block 9999; a FLUX.2 of width 64 with 2 double"),
        (", ".join(["1"] * 56), DEV, "blocks has 56 numbers; FLUX.2 dev (width 6144) takes 57"),
        (", ".join(["1"] * 57), KLEIN_9B, "has 57 numbers; FLUX.2 klein 9B (width 4096) takes 33"),
        ("0", TINY, "blocks has 1 numbers; a FLUX.2 of width 64"),
    ],
)
def test_blocks_that_the_model_has_not(text, model, words):
    with pytest.raises(ModifierError) as refused:
        Blocks.read(text).fitted(model)
    assert words in str(refused.value)


@pytest.mark.parametrize(("model", "count"), [(DEV, 57), (KLEIN_9B, 33), (KLEIN_4B, 26)])
def test_a_vector_is_one_for_the_rest_the_doubles_the_singles(model, count):
    text = ", ".join(str(number / 10) for number in range(count))
    blocks = Blocks.read(text).fitted(model)
    last = f"diffusion_model.single_blocks.{model.single_blocks - 1}.linear1.weight"
    assert blocks.of("diffusion_model.img_in.weight") == 0
    assert blocks.of("diffusion_model.double_blocks.0.img_attn.qkv.weight") == 0.1
    assert blocks.of("diffusion_model.single_blocks.0.linear2.weight") == (
        (1 + model.double_blocks) / 10
    )
    assert blocks.of(last) == (count - 1) / 10


def test_the_later_rule_wins_and_what_none_names_stays():
    blocks = Blocks.read("double=0, double 1-2=0.5, double 2=-1, other=3").fitted(DEV)
    found = [blocks.of(f"diffusion_model.double_blocks.{n}.txt_mlp.0.weight") for n in range(4)]
    assert found == [0, 0.5, -1, 0]
    assert blocks.of("diffusion_model.single_blocks.12.linear1.weight") == 1
    assert blocks.of("diffusion_model.double_stream_modulation_img.lin.weight") == 3
    assert blocks.of("diffusion_model.single_stream_modulation.lin.weight") == 3


NEAR = st.text(alphabet="0123456789.:,-+= \n\rdoublesinghert;٣²ſe", max_size=40)


@pytest.mark.parametrize("read", [parse_schedule, parse_pictures, parse_blocks])
def test_any_text_is_read_or_refused(read):
    @given(st.text(max_size=60) | NEAR)
    @example("double " + "9" * 5000 + "=1")
    @example("0:" + "9" * 5000)
    def tried(text):
        try:
            found = read(text)
        except ModifierError as refused:
            assert str(refused) and len(str(refused)) < 250
        else:
            assert len(found) <= 100
            assert all(abs(one if read is parse_pictures else one[-1]) <= 10 for one in found)

    tried()


@given(NEAR, st.sampled_from(RELEASED))
def test_any_blocks_fit_the_model_or_are_refused(text, model):
    try:
        blocks = Blocks.read(text).fitted(model)
    except ModifierError:
        return
    assert isinstance(blocks.of("diffusion_model.single_blocks.0.linear1.weight"), float)


@pytest.mark.parametrize(
    ("between", "clock", "words"),
    [
        ("cubic", CLOCKS[0], "between is 'cubic'; it takes linear, hold, ease in"),
        (BETWEEN[0], "sigma", "clock is 'sigma'; it takes steps, core percent."),
    ],
)
def test_a_word_that_came_over_a_link_is_checked_too(between, clock, words):
    with pytest.raises(ModifierError) as refused:
        Schedule.read("0:1", between, clock, "")
    assert words in str(refused.value)


@pytest.mark.parametrize("value", [1, 0.5, None, ["0:1"]])
def test_what_is_no_text_is_refused_as_a_text_is(value):
    for read in (lambda: Schedule.read(value, "linear", "steps", ""), lambda: Blocks.read(value)):
        try:
            read()
        except ModifierError:
            continue
        assert isinstance(value, int | float)  # a vector of one


@pytest.mark.parametrize(
    ("between", "quarters"),
    [
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("hold", [1, 1, 1, 1, 0]),
        ("ease in", [1, 0.9375, 0.75, 0.4375, 0]),
        ("ease out", [1, 0.5625, 0.25, 0.0625, 0]),
        ("ease in out", [1, 0.84375, 0.5, 0.15625, 0]),
    ],
)
def test_between_two_moments(between, quarters):
    schedule = Schedule.read("0:1, 1:0", between, "steps", "")
    assert [schedule.at(quarter / 4) for quarter in range(5)] == quarters
    assert schedule.by_step(4) == quarters[:4], "the moment 1 is behind the last step"


def test_a_jump_and_what_is_before_the_first_and_behind_the_last():
    schedule = Schedule.read("0.25:2, 0.5:1, 0.5:0, 0.75:-1", "linear", "steps", "")
    found = [schedule.at(moment) for moment in (0, 0.25, 0.375, 0.4999, 0.5, 0.625, 0.75, 1)]
    assert found == pytest.approx([2, 2, 1.5, 1.0004, 0, -0.5, -1, -1], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "between", "curve"),
    [
        ("0:1", "linear", "████████"),
        ("0:0", "linear", "▁▁▁▁▁▁▁▁"),
        ("0:1, 1:0", "linear", "█▇▆▅▅▄▃▂"),
        ("0:0, 0.5:1", "hold", "▁▁▁▁████"),
        ("0:-1, 1:1", "linear", "▁▂▃▄▅▆▇█"),
        ("0:3, 0.5:3, 0.5:1.5", "linear", "████▅▅▅▅"),
    ],
)
def test_the_curve_lies_between_nought_and_the_most(text, between, curve):
    assert Schedule.read(text, between, "steps", "").curve(8) == curve


A, B, C = (LoraEntry(name, 1, 1, None, f"LoRA slot {number}") for number, name in
           enumerate(("a", "b", "c"), start=1))  # fmt: skip
PLAIN = [("x", 1.0, 1.0), ("None", 1, 1), ("y", 0.5, 0.5)]


@pytest.mark.parametrize(
    ("stack", "which", "names"),
    [
        ([A, B, C], "all", "abc"),
        ([A, B, C], "2", "b"),
        ([B, C], "2", "b"),  # slot 1 is switched off
        ([B, C], "1", ""),
        ([C], "3", "c"),
        # Of two stacks, where slots say nothing: by place.
        ([A, B, LoraEntry("d", 1, 1, None, "LoRA slot 1")], "3", "d"),
        ([B, LoraEntry("d", 1, 1, None, "LoRA slot 1")], "1", "b"),
        ([C, A], "3", ""),
        (PLAIN, "1", "x"),
        (PLAIN, "2", "y"),
        ([*PLAIN[:1], B], "2", "b"),
        ([*PLAIN[:1], C], "3", ""),
        ([], "all", ""),
        (None, "1", ""),
    ],
)
def test_which_lora_of_a_stack_is_meant(stack, which, names):
    found = modified(stack, which, [Blocks.read("single=0")])
    assert "".join(entry.name for entry in found if entry.modifiers) == names
    assert [entry[:] for entry in found] == [
        (name, model, clip) for name, model, clip in stack or () if name != "None"
    ]


def test_modifiers_add_up_behind_those_that_were_there():
    once = modified([A, B], "all", [Blocks.read("single=0")])
    twice = modified(once, "1", [Blocks.read("double=0")])
    assert [[one.text for one in entry.modifiers] for entry in twice] == [
        ["single=0", "double=0"], ["single=0"],
    ]  # fmt: skip
    assert A.modifiers == (), "the stack that came in is as it was"
