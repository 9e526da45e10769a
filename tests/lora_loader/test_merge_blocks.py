"""The sum in float32 beside the weight, a few rows at a time: exact at every edge, small, one pass.

So it goes on a CPU, and anywhere for several kinds on the same rows or a weight of 8 bits.
"""

import pytest
import torch
from tiny_stacks import adapter_of, r
from torch.utils._python_dispatch import TorchDispatchMode

from flux2_lora_edit.lora_loader.adapters.base import blocks
from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.adapters.ia3 import ChannelScale
from flux2_lora_edit.lora_loader.adapters.loha import Hadamard
from flux2_lora_edit.lora_loader.adapters.lokr import Kronecker
from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.fuse import Step

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

OUT, IN = 96, 64
COLUMN_BYTES = 4 * IN
ROWS = (1, 5, 7, 24, 95, 96)


@pytest.fixture(params=ROWS)
def rows(request, monkeypatch):
    """The rows of a block: 24 divide the weight, 7 do not, 1 is the least."""
    monkeypatch.setitem(blocks.__globals__, "BLOCK_BYTES", request.param * COLUMN_BYTES)
    return request.param


def run(steps, weight, strength=1.0):
    return adapter_of(steps).calculate_weight(weight, "w", strength, 1.0, None, lambda a: a)


def exact(steps, weight, strength=1.0):
    total = weight.double()
    for step in steps:
        change = step.effect.dense().double()
        total[step.start : step.start + step.rows] += change * step.scale * strength
    return total


EFFECTS = {
    "LoRA": LowRank(r(OUT, 4), r(4, IN), 0.5, 2.0),
    "difference": Dense(r(OUT, IN), 1.0),
    "LoHa": Hadamard(r(OUT, 2), r(2, IN), r(OUT, 2), r(2, IN), 3.0),
    "LoKr, few copies": Kronecker((r(3, 2), r(2, 8)), (r(32, 8),), 1.0),
    "LoKr, many copies": Kronecker((r(32, 8),), (r(3, 8),), 1.0),
    "LoKr, one row each": Kronecker((r(OUT, 8),), (r(1, 8),), 1.0),
    "LoKr, one copy": Kronecker((r(1, 8),), (r(OUT, 8),), 1.0),
}


@pytest.mark.parametrize("kind", EFFECTS)
def test_every_kind_at_every_edge(rows, kind):
    steps, weight = [Step(0, OUT, 0.7, EFFECTS[kind])], r(OUT, IN, std=1.0).bfloat16()
    expected = exact(steps, weight, 0.5).bfloat16()
    result = run(steps, weight, 0.5)
    assert result is weight
    # float32 sums in another order: now and then the last bit of bf16 falls to the other side.
    assert (result == expected).float().mean() > 0.99
    torch.testing.assert_close(result, expected, rtol=2**-7, atol=1e-6)


def test_slices_that_begin_and_end_within_a_block(rows):
    steps = [
        Step(3, 20, 1.0, LowRank(r(20, 4), r(4, IN), 1.0)),
        Step(23, 32, -1.0, LowRank(r(32, 4), r(4, IN), 1.0)),
        Step(60, 8, 1.0, Dense(r(8, IN), 1.0)),
        Step(62, 20, 1.0, Kronecker((r(4, 8),), (r(5, 8),), 1.0)),
    ]
    weight = r(OUT, IN, std=1.0).half()
    before = weight.clone()
    torch.testing.assert_close(
        run(steps, weight), exact(steps, before).half(), rtol=2**-10, atol=1e-6
    )
    for start, end in ((0, 3), (55, 60), (82, OUT)):
        assert torch.equal(weight[start:end], before[start:end])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_kinds_on_the_same_rows_are_rounded_once(rows, dtype):
    steps = [Step(0, OUT, 1.0, effect) for effect in list(EFFECTS.values())[:5]]
    weight = r(OUT, IN, std=1.0).to(dtype)
    expected = exact(steps, weight.float()).float().to(dtype).float()
    assert (run(steps, weight).float() == expected).float().mean() > 0.99


class Seen(TorchDispatchMode):
    """Every operation's name and the device it ran for; on a GPU as without one."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def moved(value, device):
    if isinstance(value, tuple):
        return tuple(moved(item, device) for item in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


LORA, DIFF = EFFECTS["LoRA"], EFFECTS["difference"]
HALF = LowRank(r(48, 4), r(4, IN), 1.0)
UNITS = "on a CPU with 16-bit units"
WAYS = [
    ("one LoRA, 16 bits, off the CPU", "meta", torch.bfloat16, [Step(0, OUT, 1.0, LORA)], False),
    ("one LoRA, 16 bits, on the CPU", "cpu", torch.bfloat16, [Step(0, OUT, 1.0, LORA)], True),
    (f"one LoRA, {UNITS}", "cpu", torch.bfloat16, [Step(0, OUT, 1.0, LORA)], False),
    (f"a difference, {UNITS}", "cpu", torch.bfloat16, [Step(0, OUT, 1.0, DIFF)], True),
    (f"two on the same rows, {UNITS}", "cpu", torch.float16, [Step(0, OUT, 1.0, LORA)] * 2, True),
    (f"8 bits, {UNITS}", "cpu", torch.float8_e4m3fn, [Step(0, OUT, 1.0, LORA)], True),
    ("one LoRA, float32, on the CPU", "cpu", torch.float32, [Step(0, OUT, 1.0, LORA)], False),
    ("two kinds, float32", "meta", torch.float32, [Step(0, OUT, 1.0, e) for e in (LORA, DIFF)], 0),
    ("two kinds, 16 bits", "meta", torch.float16, [Step(0, OUT, 1.0, e) for e in (LORA, DIFF)], 1),
    ("beside each other", "meta", torch.bfloat16, [Step(n, 48, 1.0, HALF) for n in (48, 0)], 0),
    ("8 bits", "meta", torch.float8_e4m3fn, [Step(0, OUT, 1.0, LORA)], True),
]


@pytest.mark.parametrize(("name", "device", "dtype", "steps", "blocks"), WAYS,
                         ids=[w[0] for w in WAYS])  # fmt: skip
def test_when_the_sum_is_made_beside_the_weight(name, device, dtype, steps, blocks, monkeypatch):
    """A copy into the block and one out of it, or neither."""
    units = {torch.bfloat16, torch.float16} if UNITS in name else set()
    from flux2_lora_edit.lora_loader.patch import merge  # imports the host

    monkeypatch.setitem(merge.__globals__, "_CPU_UNITS", units)
    weight = torch.zeros(OUT, IN, dtype=dtype, device=device)
    adapter = adapter_of(steps)
    adapter = type(adapter)(set(), moved(adapter.weights, device))
    with Seen() as seen:
        adapter.calculate_weight(weight, "w", 1.0, 1.0, None, lambda a: a)
    assert seen.names.count("copy_") == (2 if blocks else 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", ["up", "down", "up down", ""])
def test_factors_wider_than_16_bits_lose_nothing_in_a_16_bit_sum(dtype, wide):
    """Added to nothing, the change shows its own error: that of the one rounding of the sum."""
    up, down = (
        factor if name in wide.split() else factor.to(dtype)
        for name, factor in (("up", r(OUT, 16, std=1.0)), ("down", r(16, IN, std=1.0)))
    )
    weight = torch.zeros(OUT, IN, dtype=dtype)
    LowRank(up, down, 0.5).add_to(weight, 0.6)
    truth = up.double() @ down.double() * 0.3
    assert (weight == truth.to(dtype)).float().mean() > 0.98


def test_the_weight_is_read_and_written_once(monkeypatch):
    """4 bytes a parameter of bf16 cross the memory bus, whatever the blocks."""
    monkeypatch.setitem(blocks.__globals__, "BLOCK_BYTES", 10 * COLUMN_BYTES)
    weight = r(OUT, IN, std=1.0).bfloat16()
    place = weight.untyped_storage().data_ptr()
    moved = []

    class Traffic(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func.__name__.split(".")[0] == "copy_":
                moved.extend(
                    t.numel() * t.element_size()
                    for t in args
                    if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() == place
                )
            else:
                moves = func.__name__.split(".")[0] not in ("slice", "detach", "expand", "alias")
                touches = [
                    t
                    for t in args
                    if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() == place
                ]
                assert not (moves and touches) or func.__name__.startswith("empty_like")
            return result

    steps = [Step(0, OUT, 1.0, effect) for effect in EFFECTS.values()]
    with Traffic():
        run(steps, weight)
    assert sum(moved) == 4 * weight.numel()


def test_what_depends_on_the_weight_sees_the_sum_before_it(rows):
    """bf16: the sum, the transform and the sum after it are rounded once, all together."""
    scale = Step(0, OUT, 0.5, ChannelScale(r(OUT, 1)))
    before, after = Step(0, OUT, 1.0, LORA), Step(0, OUT, 1.0, DIFF)
    weight = r(OUT, IN, std=1.0).bfloat16()
    first = exact([before], weight)
    expected = exact([after], first * (1 + 0.5 * scale.effect.change.double()))
    result = run([before, scale, after], weight)
    assert (result == expected.bfloat16()).float().mean() > 0.99
