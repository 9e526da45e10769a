"""What the demo edits, and with what: the embedded models by default."""

from dataclasses import dataclass, field

from ..stock import Models

IMAGES = ("astronaut.png", "chelsea.png")
PROMPT = "the cat of image 2 on the shoulder of the astronaut of image 1"


@dataclass(frozen=True)
class Lora:
    """A LoRA as ComfyUI lists it, at a scale; ``title`` is what it is called on the sheet."""

    name: str
    scale: float = 1.0
    title: str = ""

    @property
    def label(self) -> str:
        """The title, or the file's name without folders and extension."""
        return self.title or self.name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]


@dataclass(frozen=True)
class Trial:
    """One edit: the models' file names, the LoRAs, the settings, and why they are these.

    ``model`` is what the model is called in a sentence. ``negative`` connects the negative, which
    makes two forwards a step (CFG). ``size`` is a preset of FLUX.2 Image Size, or the side of a
    square. ``notes`` are lines for the person who waits.
    """

    model: str
    models: Models
    loras: tuple[Lora, ...] = ()
    steps: int = 4
    guidance: float = 1.0
    negative: bool = False
    prompt: str = PROMPT
    size: str | int = "square"
    seed: int = 42
    images: tuple[str, ...] = IMAGES
    notes: tuple[str, ...] = field(default=())


TOY = Trial(
    model="a toy FLUX.2 klein, made for this demo",
    models=Models("flux2-toy-klein.safetensors", "toy-words.safetensors", "taef2"),
    loras=(
        Lora("toy-mosaic.safetensors", 1.0, "LoRA 1: mosaic"),
        Lora("toy-duotone.safetensors", 1.0, "LoRA 2: duotone"),
    ),
    prompt="image 1 in the colours of image 2",
    images=("astronaut.png", "cat.png"),
    notes=(
        "the model is a toy of FLUX.2's own architecture: it really edits, and knows few words;",
        "./scripts/demo --real fetches FLUX.2 klein 4B, and --models DIR takes the models you have",
    ),
)
EMBEDDED = TOY
"""What runs without --models and --real."""
