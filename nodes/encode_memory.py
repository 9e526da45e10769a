"""What an encoder made of an input, remembered for as long as both live.

Why not leave this to the host's cache: its entry is the whole node, so a changed prompt would
encode every picture again; and of a node that expands into inner ones, ComfyUI 0.30's default cache
drops the inner results in every run that did not need them (a new seed, say), since only nodes of
the queued graph count as in use. Both measured.

Entries hang on the encoder and on the picture by weak references: the host keeps the same objects
while their nodes are unchanged, and when it lets go of one, its entries go too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.weak import WeakTensorKeyDictionary

MAX_TEXTS = 8
"""Texts kept for one text encoder; a FLUX.2 dev conditioning is about 30 MB."""


class EncodeMemory:
    """Latents by (VAE, picture, key) and conditionings by (text encoder, text)."""

    def __init__(self) -> None:
        self._latents: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._texts: WeakKeyDictionary[Any, OrderedDict[str, Any]] = WeakKeyDictionary()

    def latent(
        self, vae: Any, image: torch.Tensor, key: Hashable, encode: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """The latent of ``image`` under ``key``, from memory or from ``encode()``."""
        pictures = self._latents.setdefault(vae, WeakTensorKeyDictionary())
        by_key = pictures.setdefault(image, {})
        if key not in by_key:
            # One per picture: a changed rule replaces it.
            latent = encode()
            by_key.clear()
            by_key[key] = latent
        return by_key[key]

    def text(self, clip: Any, text: str, encode: Callable[[], Any]) -> Any:
        """The conditioning of ``text``, from memory or from ``encode()``."""
        texts = self._texts.setdefault(clip, OrderedDict())
        if text not in texts:
            texts[text] = encode()
            while len(texts) > MAX_TEXTS:
                texts.popitem(last=False)
        texts.move_to_end(text)
        return texts[text]
