"""Tiny transformers with quantised weights, in the files' own format ("comfy_quant" markers).

Needs ComfyUI on ``sys.path``: its comfy_kitchen writes the 4-bit and 8-bit layouts.
"""

import json

import torch
from torch import Tensor

_LAYOUTS = {
    "float8_e4m3fn": "TensorCoreFP8E4M3Layout",
    "nvfp4": "TensorCoreNVFP4Layout",
    "int8_tensorwise": "TensorWiseINT8Layout",
}
FORMATS = tuple(_LAYOUTS)


def known(form: str) -> bool:
    """Whether this ComfyUI has the format; 0.24 knows no 8-bit integers."""
    from comfy.quant_ops import QUANT_ALGOS

    return form in QUANT_ALGOS


def quantised(weights: dict[str, Tensor], form: str) -> dict[str, Tensor]:
    """``weights`` with the Linears of the blocks in ``form``, one of FORMATS."""
    from comfy.quant_ops import QuantizedTensor

    result = {}
    for key, weight in weights.items():
        if "blocks" not in key or weight.dim() != 2 or not key.endswith(".weight"):
            result[key] = weight
            continue
        module = key.removesuffix(".weight")
        how = {"is_weight": True} if form == "int8_tensorwise" else {}
        made = QuantizedTensor.from_float(
            weight.to(torch.bfloat16), _LAYOUTS[form], scale="recalculate", **how
        )
        result |= made.state_dict(key)
        marker = json.dumps({"format": form}).encode()
        result[f"{module}.comfy_quant"] = torch.tensor(list(marker), dtype=torch.uint8)
    return result
