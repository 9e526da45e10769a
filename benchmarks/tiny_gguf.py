"""Tiny FLUX.2 transformers as GGUF files, as the packs that load them expect them.

Needs the ``gguf`` package, which those packs need too. Norms and whatever does not divide into the
type's blocks stay in F16, as the published files keep their small tensors.
"""

from pathlib import Path

import numpy as np
import torch

TYPES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_K")
ARCHITECTURE = "flux"


def write(path: Path, weights: dict[str, torch.Tensor], kind: str) -> None:
    """``weights`` as ``path``, the matrices in ``kind``, one of TYPES."""
    import gguf

    wanted = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    for name, weight in weights.items():
        fits = weight.dim() == 2 and weight.shape[1] % block == 0
        how = wanted if fits else gguf.GGMLQuantizationType.F16
        data = weight.float().numpy()
        rows = _q4_k(data) if how.name == "Q4_K" else gguf.quants.quantize(data, how)
        writer.add_tensor(name, rows, raw_dtype=how)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _q4_k(data: np.ndarray) -> np.ndarray:
    """Blocks of 256 random weights about as large as those of ``data`` [rows, columns].

    The package reads this type and does not write it. A random model needs no more than valid
    blocks: a scale, a least value, twelve bytes of scales within the block, and 4 bits a weight.
    """
    rows, columns = data.shape
    rng = np.random.default_rng(columns)
    blocks = rng.integers(0, 256, (rows, columns // 256, 144), dtype=np.uint8)
    # Scales within the block are up to 63 and weights up to 15; the least values centre them.
    scale = np.float16(data.std() / 258)
    blocks[..., 0:2] = np.frombuffer(scale.tobytes(), np.uint8)
    blocks[..., 2:4] = np.frombuffer(np.float16(scale * 7.5).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)
