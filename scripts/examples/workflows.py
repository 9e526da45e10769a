"""The example workflows: a graph, its columns from left to right, and a note."""

from host.graph import Graph

from . import recipes, regions, where_when
from .graphs import PICTURE, hosted, local, pictures, stack
from .models import DEV, EDIT_LORA, KLEIN, KLEIN_BASE, STYLE_LORA, Family
from .sheets import Column, Example, Sheet

TEXT = "a small lighthouse on a rock at dawn, soft watercolour, gulls over calm water"
CHANGE = "show the scene of image 1 in winter: snow on the ground, low sun, everything else kept"
COMBINE = (
    "put the subject of image 1 into the place of image 2, in the light and colours of image 3"
)
TURN = "show the scene of image 1 from a higher angle, everything else kept"


def _on_this_machine(
    family: Family,
    prompt: str,
    size: str,
    count: int = 0,
    loras: tuple[tuple[str, float], ...] = (),
    cfg: bool = False,
) -> Sheet:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * count)
    lora = stack(graph, loras)
    at = local(graph, family, prompt, images=images, loras=lora, size=size, cfg=cfg)
    columns = [Column("Models", (at["model"], at["clip"], at["vae"]))]
    if images:
        columns.append(Column("Pictures", tuple(images.values())))
    columns += [
        Column("LoRAs", (lora, at["apply"])),
        Column("Prompt and size", (at["conditioning"], at["size"])),
        Column("Sample", (at["sampler"], at["decode"])),
        Column("Result", (at["save"],)),
    ]
    return Sheet(graph, tuple(columns), note=(340, 640))


def _on_runcomfy(prompt: str, size: str, count: int, loras: tuple[tuple[str, float], ...]) -> Sheet:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * count)
    lora = stack(graph, loras)
    at = hosted(graph, prompt, images=images, loras=lora, size=size)
    columns = [Column("Pictures", tuple(images.values()))] if images else []
    columns += [
        Column("LoRAs", (lora,)),
        Column("RunComfy (paid)", (at["hosted"],)),
        Column("Result", (at["save"],)),
    ]
    return Sheet(graph, tuple(columns))


def _side_by_side() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    lora = stack(graph, ((EDIT_LORA, 1.0),))
    here = local(
        graph,
        DEV,
        TURN,
        images=images,
        loras=lora,
        size="landscape_4_3",
        prefix="side-by-side-local",
    )
    there = hosted(
        graph, TURN, images=images, loras=lora, size="landscape_4_3", prefix="side-by-side-runcomfy"
    )
    return Sheet(
        graph,
        (
            Column("Models", (here["model"], here["clip"], here["vae"])),
            Column("Same picture, same LoRA", (images["image_1"], lora)),
            Column("Here", (here["apply"], here["conditioning"], here["size"])),
            Column("Sample here", (here["sampler"], here["decode"])),
            Column("Result here", (here["save"],)),
            Column("RunComfy (paid)", (there["hosted"],)),
            Column("Result there", (there["save"],)),
        ),
        note=(340, 760),
    )


PAID = (
    "Runs on RunComfy, which **bills each request**. Set your token in Settings → FLUX.2 LoRA Edit "
    "→ RunComfy. The LoRA must be on Hugging Face or at a link."
)

EXAMPLES = (
    Example(
        "Text to image with LoRAs (dev)",
        "A picture from text with a stack of up to three LoRAs. The one in the stack is fetched "
        "from Hugging Face into your loras folder on the first run.",
        lambda: _on_this_machine(DEV, TEXT, "landscape_4_3", loras=((STYLE_LORA, 0.8),)),
        DEV,
    ),
    Example(
        "Edit one picture (dev)",
        "Choose a picture and say what to change. The result has the picture's own size, cut to a "
        "multiple of 16.",
        lambda: _on_this_machine(DEV, TURN, "match image", 1, loras=((EDIT_LORA, 1.0),)),
        DEV,
    ),
    Example(
        "Edit with three references (dev)",
        "Three pictures in one prompt: they are image 1, image 2 and image 3, by their sockets.",
        lambda: _on_this_machine(DEV, COMBINE, "landscape_4_3", 3),
        DEV,
    ),
    Example(
        "Edit one picture (klein)",
        "klein distilled: four steps, no CFG, so the negative stays unconnected.",
        lambda: _on_this_machine(KLEIN, CHANGE, "match image", 1),
        KLEIN,
    ),
    Example(
        "Edit with CFG (klein base)",
        "klein base: the negative is connected and guidance is above 1, so each step runs twice, "
        "with the picture in both halves.",
        lambda: _on_this_machine(KLEIN_BASE, CHANGE, "match image", 1, cfg=True),
        KLEIN_BASE,
    ),
    Example(
        "Text to image (RunComfy)",
        PAID,
        lambda: _on_runcomfy(TEXT, "landscape_4_3", 0, ((STYLE_LORA, 0.8),)),
    ),
    Example(
        "Edit one picture (RunComfy)",
        PAID,
        lambda: _on_runcomfy(TURN, "auto", 1, ((EDIT_LORA, 1.0),)),
    ),
    Example(
        "Same edit here and on RunComfy",
        f"One picture, one LoRA stack, one prompt, one seed: once on this machine and once there. "
        "The two pictures need not match: the same seed is other noise on other machines, and "
        f"precision and size may differ. {PAID}",
        _side_by_side,
        DEV,
    ),
    *recipes.EXAMPLES,
    *regions.EXAMPLES,
    *where_when.EXAMPLES,
)
