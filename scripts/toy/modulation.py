"""Time and guidance in the toy: what modulates its layers, as functions of sigma and guidance."""

import math

import torch

from host.tiny import Weights

from .stream import HIDDEN, MEANT, ONE

# Of the signal that ``silu(vec)`` carries to all modulations.
ALWAYS, FLOW, FLOW_MIDDLE, FLOW_FINE, STRENGTH = range(5)
# Sigmas between which the middle and the fine parts of a picture come to be decided.
DECIDED = {"klein": ((1.02, 0.91), (0.95, 0.78)), "dev": ((0.85, 0.6), (0.6, 0.3))}
LEAST_SIGMA = 0.02
GUIDANCE = 2.5  # the guidance at which dev's edits have their full strength


def fit_time(w: Weights, kind: str, seed: int) -> None:
    """``silu(vec)`` = the signals as functions of sigma, and of guidance on dev.

    Random features of the slower half of the embedding, and the last layer fitted to them.
    """
    sigma = torch.cat([torch.linspace(0, 1, 2000), torch.logspace(-4, -1, 1000)]).double()
    flow = 1 / sigma.clamp(min=LEAST_SIGMA)
    middle, fine = (_ramp(sigma, *between) for between in DECIDED[kind])
    signals = torch.stack([torch.ones_like(flow), flow, flow * middle, flow * fine], 1)
    # What counts is the step, sigma times the flow.
    _fit(w, "time_in", sigma, _inverse_silu(signals), 1 / flow[:, None], seed)
    if kind == "dev":
        guidance = torch.linspace(0, 20, 2000).double()
        wanted = torch.zeros(2000, STRENGTH + 1).double()
        wanted[:, STRENGTH] = _inverse_silu(guidance / GUIDANCE)
        _fit(w, "guidance_in", guidance, wanted, torch.ones(2000, 1).double(), seed)


def _fit(
    w: Weights,
    embedder: str,
    values: torch.Tensor,
    wanted: torch.Tensor,
    matter: torch.Tensor,
    seed: int,
) -> None:
    frequencies = torch.exp(-math.log(10000) * torch.arange(128).double() / 128)
    angles = 1000 * values[:, None] * frequencies
    embedded = torch.cat([angles.cos(), angles.sin()], 1)
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((HIDDEN, 256), generator=generator).double()
    fastest = float(values.max()) * 1000
    slow = fastest * frequencies < 60
    first *= torch.cat([slow, slow])
    hidden = torch.nn.functional.silu(embedded @ first.T)
    ridge = 1e-9 * len(values) * torch.eye(HIDDEN).double()
    weighed = hidden * matter
    solution = torch.linalg.solve(weighed.T @ weighed + ridge, weighed.T @ (wanted * matter))
    w[f"{embedder}.in_layer.weight"] += first.float()
    w[f"{embedder}.out_layer.weight"][: wanted.shape[1]] = solution.T.float()


def _ramp(sigma: torch.Tensor, high: float, low: float) -> torch.Tensor:
    part = ((high - sigma) / (high - low)).clamp(0, 1)
    return part * part * (3 - 2 * part)


def _inverse_silu(value: torch.Tensor) -> torch.Tensor:
    """x >= 0 with silu(x) = value; by Newton's method."""
    x = value + 0.5
    for _ in range(60):
        gate = torch.sigmoid(x)
        x = x - (x * gate - value) / (gate * (1 + x * (1 - gate)))
    return x


def modulate(w: Weights, kind: str) -> None:
    """ONE is 1 in every modulated layer, gates are open, dev's edits as strong as guidance says."""
    for name, branches in (
        ("double_stream_modulation_img", 2),
        ("double_stream_modulation_txt", 2),
        ("single_stream_modulation", 1),
    ):
        for branch in range(branches):
            shift, scale, gate = (
                w[f"{name}.lin.weight"][(3 * branch + part) * HIDDEN :][:HIDDEN]
                for part in range(3)
            )
            shift[ONE, ALWAYS] = 1
            scale[ONE, ALWAYS] = -1
            gate[:, ALWAYS] = 1
    if kind == "dev":
        w["double_stream_modulation_img.lin.weight"][5 * HIDDEN :][MEANT, ALWAYS] = 0
        w["double_stream_modulation_img.lin.weight"][5 * HIDDEN :][MEANT, STRENGTH] = 1
