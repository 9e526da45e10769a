"""A LoRA's multiplier by token: the picture's by a mask, the text's and the references' by one."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

IMAGE, TEXT, JOINT, NONE = "image", "text", "joint", "none"
"""The tokens that a layer sees: output and references; text; text and both; no tokens."""


def stream_of(module: str) -> str:
    """Which of these the module of that name, in the diffusion model, sees."""
    names = set(module.split("."))
    if not names.isdisjoint({"img_in", "img_attn", "img_mlp"}) or module.endswith("layer.linear"):
        return IMAGE
    if not names.isdisjoint({"txt_in", "txt_attn", "txt_mlp"}):
        return TEXT
    return JOINT if "single_blocks" in names and "modulation" not in names else NONE


@dataclass(frozen=True, eq=False)
class Region:
    """``mask`` (pictures, height, width), 0 to 1, one for all pictures or one each; None: all.

    ``text``: for the text's tokens and the layers that see no tokens; ``references``: for those of
    the reference images.
    """

    mask: Tensor | None
    text: float = 1.0
    references: float = 1.0

    def tokens(self, stream: str, cells: tuple[int, int], text: int, references: int) -> Tensor:
        """Multipliers (pictures, tokens) of a stream; one token stands for all of a kind.

        ``cells``: the output's latent cells, (height, width), row by row.
        """
        constant = torch.tensor([[self.text]])
        if stream in (TEXT, NONE):
            return constant
        if self.mask is None:
            image = torch.ones(1, cells[0] * cells[1])
        else:
            mask = self.mask.detach().float().cpu().nan_to_num().clamp(0, 1)
            # Every pixel counts, and a full mask is exactly 1.
            image = F.interpolate(mask[:, None], size=cells, mode="area").flatten(1).clamp(0, 1)
        rows = len(image)
        image = torch.cat([image, torch.full((rows, references), self.references)], 1)
        return image if stream == IMAGE else torch.cat([constant.expand(rows, text), image], 1)

    def describe(self) -> str:
        """For the report: "region 40 % of the picture, text 0, references 1"."""
        area = 1.0 if self.mask is None else float(self.mask.float().nan_to_num().mean())
        count = 1 if self.mask is None else len(self.mask)
        masks = "" if count == 1 else f" ({count} masks)"
        return (
            f"region {100 * area:.0f} % of the picture{masks}, text {self.text:g}, references "
            f"{self.references:g}"
        )
