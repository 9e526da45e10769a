"""A text encoder by construction: a CLIP-L whose layers do nothing and whose words are channels.

A word that the toy understands is a channel of the conditioning; every other word is 0, as padding
is. Token ids are those of the CLIP vocabulary that ComfyUI brings.
"""

import math

import torch

from host.tiny import Weights, clip_l_shapes

WIDTH = 768
HALF = torch.float16
BEGIN, END = 0, 10
# Channel -> the words' token ids.
_NUMBERS = {1: (272, 637), 2: (273, 1237), 3: (274, 2097)}
_EDITS = {
    4: (25576, 15120),  # monochrome, bw
    5: (3424, 5610, 7689, 3878, 19708),  # sunset, sunrise, dawn, golden, dusk
    6: (930, 6302, 20001),  # night, midnight, moonlight
    7: (2541, 2583, 14191, 11619),  # winter, snow, snowy, frost
    8: (5269, 11200, 3610, 19268),  # sketch, pencil, drawing, charcoal
    9: (5389, 7626, 13901),  # colors, colours, palette
}
TOKENS = {BEGIN: (49406,), **_NUMBERS, **_EDITS, END: (49407,)}
CHANNELS = len(TOKENS)
# What a word's channel says: how much of reference 1, 2, 3 it means; which edit it asks for.
# "in the colours of image 2" means image 1 otherwise.
PICTURES = {BEGIN: (1.0, 0.0, 0.0), 1: (1.0, 0.0, 0.0), 2: (0.0, 1.0, 0.0), 3: (0.0, 0.0, 1.0)}
PICTURES |= {9: (1.0, -1.0, 0.0)}
EDITS = tuple(_EDITS)
VALUE = math.sqrt(WIDTH / 2)
"""What a word's channel is in the conditioning, after the encoder's last layer norm."""


def clip_l() -> Weights:
    """The weights for ``CLIPLoader(type="flux2")``: width 768, float16, 247 MB, nearly all zero."""
    weights = {
        name: torch.full(shape, float(len(shape) == 1 and name.endswith("weight")), dtype=HALF)
        for name, shape in clip_l_shapes().items()
    }
    table = weights["text_model.embeddings.token_embedding.weight"]
    for channel, tokens in TOKENS.items():
        table[list(tokens), channel] = 1
        # So that the layer norm at the end takes no mean away, which all channels would share.
        table[list(tokens), WIDTH - 1] = -1
    return weights
