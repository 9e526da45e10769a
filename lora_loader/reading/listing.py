"""What a list of files says of one: base, rank, trigger words, and whether it fits a model.

From the header alone, and cheap enough for thousands of files: those of one trainer and one setting
have the same names and shapes, so what these tell is worked out once for all of them (``Shape``).
The loader's own rules decide (``facts``, ``trained_for``, ``refused``), so that a list promises
what Apply keeps; the tensors' values alone can still make it refuse.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ...flux2.variants import RELEASED, Flux2Model, NotFlux2Error, identify
from ...flux2.variants import Shape as WeightShape
from ..adapters.base import Unfit
from .facts import Facts, facts
from .file import Header, LoraFileError, TensorInfo, parse_header, read_header
from .fit import refused
from .info import trigger_words
from .layout import Layout
from .training import Anatomy, Training, anatomy, trained_for

MAX_HEADER_BYTES = 4 * 2**20
"""Of a file that is read for a list; Apply reads larger ones. Covers and tag lists come to 2 MB."""
MOST_WORDS, MAX_WORD = 20, 120
UNKNOWN, UNREADABLE = "unknown", "cannot be read"

_START = re.compile(r'\{\s*"__metadata__"\s*:\s*')  # as the format's own writer begins
# What another model's trainers write as the base, and how its modules are named.
_OTHERS = (
    (r"sdxl|stable-diffusion-xl", "SDXL"),
    (r"sd_v1|stable-diffusion-v1", "SD 1.5"),
    (r"sd_v2|stable-diffusion-v2", "SD 2"),
    (r"sd3|stable-diffusion-3", "SD 3"),
    (r"qwen", "Qwen-Image"),
    (r"z[\W_]*image", "Z-Image"),
    (r"hunyuan", "Hunyuan"),
    (r"(?<![a-z])wan", "Wan"),
    (r"ltx", "LTX"),
    (r"chroma", "Chroma"),
    (r"lumina", "Lumina"),
)
# Without an open end anywhere: a header is made by anybody, and is searched at every place.
_ATTENTION_OF = rb'_attn2_to_k\.lora_(?:down|A)\.weight":[^}]{0,80}"shape":\s?\[\d{1,9},\s?%d\]'
_OTHER_NAMES = (
    (rb'"lora_te2_|' + _ATTENTION_OF % 2048, "SDXL"),
    (_ATTENTION_OF % 768, "SD 1.5"),
    (_ATTENTION_OF % 1024, "SD 2"),
    (rb"(?:down|input)_blocks[._]\d", "Stable Diffusion"),
    (rb"transformer_blocks[._]\d{1,3}[._]img_m(?:lp[._]net|od[._]1)", "Qwen-Image"),
    (rb"individual_token_refiner", "Hunyuan"),
    (rb"[\"._]blocks[._]\d{1,3}[._](?:self|cross)_attn", "Wan"),
)
# A U-Net has hundreds of modules and none of ours.
_UNET = re.compile(rb"(?:down|input)_blocks[._]\d")
_OURS = re.compile(rb"(?:double|single)_blocks|single_transformer_blocks|_stream_modulation")


class _TooLong(LoraFileError):
    """A header that is too long for a list."""


class Shape(NamedTuple):
    """What a header's names and shapes tell: the anatomy, the most frequent rank, the first names
    and the name of another base; ``digest`` tells it from others."""

    digest: str
    anatomy: Anatomy
    rank: int | None
    names: tuple[str, ...]
    other: str


class Listed(NamedTuple):
    """What a list says of a file. ``digest`` is its ``Shape``'s, or "" where it was not read."""

    base: str
    rank: int | None
    trigger_words: tuple[str, ...]
    digest: str
    training: Training | None


class ModelFile(NamedTuple):
    """A model that a file may fit: what it is, and its modules under all their names."""

    model: Flux2Model
    layout: Layout
    digest: str


_SOME = TensorInfo("", (), 0, 0)  # of which the name alone counts
UNREAD = Listed(UNREADABLE, None, (), "", None)
TOO_LONG = Listed(UNKNOWN, None, (), "", None)


def read_model(path: Path) -> ModelFile | None:
    """The FLUX.2 model of a .safetensors file, of a whole checkpoint too, by its header; None for
    anything else."""
    try:
        tensors = read_header(path).tensors
        shapes: dict[str, WeightShape] = {}
        for name, info in tensors.items():
            whole = info.shape
            if info.dtype == "U8" and len(whole) == 2:  # two 4-bit weights a byte
                whole = (whole[0], 2 * whole[1])
            shapes[name.removeprefix("model.")] = whole
        model = identify(shapes)
    except (LoraFileError, NotFlux2Error):
        return None
    digest = blake2b(repr(sorted(shapes.items())).encode(), digest_size=8).hexdigest()
    return ModelFile(model, Layout(shapes), digest)


class HeaderReader:
    """Reads headers for a list, and keeps what names and shapes tell by what they are."""

    def __init__(self, most: int = 5000) -> None:
        self.most = most
        self._shapes: dict[str, Shape | None] = {}
        self._last: tuple[str, Facts | None] = ("", None)

    def read(self, path: Path, sidecar: str = "", noted: Sequence[object] = ()) -> Listed:
        """What the file says; ``sidecar`` and ``noted`` are the words beside it. Never raises."""
        try:
            metadata, text, data_bytes = _header_text(path)
            shape = self._shape(text, data_bytes)
        except _TooLong:
            return TOO_LONG
        except LoraFileError:
            return UNREAD
        header = Header(path, 0, dict.fromkeys(shape.names, _SOME), metadata)
        training = trained_for(Facts(header, (), (), None), shape.anatomy)
        words = trigger_words(metadata, sidecar, noted)[:MOST_WORDS]
        short = tuple(word[:MAX_WORD] for word in words)
        return Listed(_base(training, shape), shape.rank, short, shape.digest, training)

    def fits(self, path: Path, listed: Listed, model: ModelFile) -> bool:
        """Whether Apply takes files of these names and shapes for the model. Never raises."""
        digest, known = self._last
        if digest != listed.digest:
            try:
                _, text, data_bytes = _header_text(path)
                known = None if _is_unet(text) else _facts(text, data_bytes)
            except LoraFileError:
                return False
            self._last = listed.digest, known
        if known is None or listed.training is None:
            return False
        return not refused(known, listed.training, model.layout, model.model)

    def _shape(self, text: bytes, data_bytes: int) -> Shape:
        """Raises LoraFileError."""
        digest = blake2b(b"%d" % data_bytes + text, digest_size=16).hexdigest()
        shape = self._shapes.get(digest)
        if shape is None:
            if len(self._shapes) >= self.most:
                self._shapes.clear()
            shape = self._shapes[digest] = self._new_shape(digest, text, data_bytes)
        return shape

    def _new_shape(self, digest: str, text: bytes, data_bytes: int) -> Shape:
        other = next((name for sign, name in _OTHER_NAMES if re.search(sign, text)), "")
        if _is_unet(text):
            self._last = digest, None
            return Shape(digest, Anatomy(None, 0, 0, ""), None, (), other)
        known = _facts(text, data_bytes)
        self._last = digest, known
        made = [module.made for module in known.modules if not isinstance(module.made, Unfit)]
        ranks = Counter(geometry.rank for _, geometry in made if geometry.rank)
        rank = ranks.most_common(1)[0][0] if ranks else None
        names = tuple(known.header.tensors)[:50]
        return Shape(digest, anatomy(known), rank, names, other)


def _header_text(path: Path) -> tuple[dict[str, str], bytes, int]:
    """A header's metadata, its text without them, and how many bytes of tensors follow.

    Raises LoraFileError.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if MAX_HEADER_BYTES < length <= size - 8:
                raise _TooLong
            text = file.read(length if 2 <= length <= size - 8 else 0)
    except OSError:
        raise LoraFileError from None
    try:
        whole = text.decode()
        begun, metadata, end = _START.match(whole), None, 0
        if begun is None:
            metadata = json.loads(whole).get("__metadata__")
        else:
            metadata, end = json.JSONDecoder().raw_decode(whole, begun.end())
            whole = "{" + whole[end:].lstrip().removeprefix(",")
        table = metadata if isinstance(metadata, dict) else {}
        json.dumps(table, ensure_ascii=False).encode()
    except (ValueError, RecursionError, AttributeError):
        raise LoraFileError from None
    strings = {key: value for key, value in table.items() if isinstance(value, str)}
    return strings, whole.encode(), size - 8 - length


def _facts(text: bytes, data_bytes: int) -> Facts:
    """Raises LoraFileError."""
    tensors, _ = parse_header(text, data_bytes)
    return facts(Header(Path(), data_bytes, tensors, {}))


def _is_unet(text: bytes) -> bool:
    return _UNET.search(text) is not None and _OURS.search(text) is None


def _base(training: Training, shape: Shape) -> str:
    """The base in a few words: "FLUX.2 klein 9B", "SDXL", or what little is known."""
    known = {model.width: model.name for model in RELEASED}
    if training.family != "FLUX.1" and training.width in known:
        return f"FLUX.2 {known[training.width]}"
    named = (training.base_model or "").lower()
    other = next((name for sign, name in _OTHERS if re.search(sign, named)), shape.other)
    if other and training.family != "FLUX.2":
        return other
    if training.family == "FLUX.1":
        return "FLUX.1"
    if training.width:
        return f"width {training.width}"
    if training.family is None:
        return UNKNOWN
    return f"FLUX.2 {training.variant or ''}".strip()
