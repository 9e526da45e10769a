"""The FLUX.2 models: which one a set of weight shapes is.

Source: black-forest-labs/flux2 ``util.py`` and ``model.py``; shapes as ComfyUI names the weights.
Base and distilled klein have the same shapes, so the weights do not tell them apart.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

PREFIX = "diffusion_model."
"""Before the names of the transformer's weights, where the host names a whole MODEL's."""
BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.")
"""In the name of a weight: the kind of its block, and the number."""


class NotFlux2Error(ValueError):
    """The model is not FLUX.2; says what it looks like and what to load."""


@dataclass(frozen=True)
class Flux2Model:
    """A FLUX.2 transformer: its name, hidden width, block counts and guidance input.

    ``name`` is "dev", "klein 9B" or "klein 4B", or None for a size that was never released.
    """

    name: str | None
    width: int
    double_blocks: int
    single_blocks: int
    guidance: bool

    def describe(self) -> str:
        """For a sentence: "FLUX.2 klein 9B (width 4096)"."""
        if self.name:
            return f"FLUX.2 {self.name} (width {self.width})"
        return (
            f"a FLUX.2 of width {self.width} with {self.double_blocks} double and "
            f"{self.single_blocks} single blocks"
        )


RELEASED = (
    Flux2Model("dev", 6144, 8, 48, True),
    Flux2Model("klein 9B", 4096, 8, 24, False),
    Flux2Model("klein 4B", 3072, 5, 20, False),
)


def identify(shapes: Mapping[str, Shape]) -> Flux2Model:
    """The model with these weight shapes, by their names with or without ``diffusion_model.``.

    Raises NotFlux2Error for anything that is no FLUX.2 transformer.
    """
    found = {name.removeprefix(PREFIX): shape for name, shape in shapes.items()}
    image_in = found.get("img_in.weight", ())
    modulation = found.get("double_stream_modulation_img.lin.weight", ())
    if len(image_in) != 2 or len(modulation) != 2:
        raise NotFlux2Error(_what_it_is(found))
    blocks = {"double": 0, "single": 0}
    for match in map(BLOCK.match, found):
        if match is not None:
            blocks[match[1]] = max(blocks[match[1]], int(match[2]) + 1)
    sizes = (image_in[0], blocks["double"], blocks["single"])
    known = {(m.width, m.double_blocks, m.single_blocks): m.name for m in RELEASED}
    return Flux2Model(known.get(sizes), *sizes, guidance="guidance_in.in_layer.weight" in found)


def _what_it_is(found: Mapping[str, Shape]) -> str:
    if "double_blocks.0.img_mod.lin.weight" in found:
        what = "FLUX.1"
    elif any(name.startswith("double_blocks.") for name in found):
        what = "a relative of FLUX.1"
    elif any(name.startswith("input_blocks.") for name in found):
        what = "a Stable Diffusion UNet"
    else:
        what = "another kind of model"
    return f"The model is not FLUX.2: its weights are those of {what}. Load FLUX.2 dev or klein."
