"""The examples of a LoRA that acts otherwise from picture to picture, place to place, step to step.

In boxes as the recipes are; what they are about, FLUX.2 LoRA Schedule and Region, stands outside.
"""

from host.graph import Graph, Ref

from .folding import Box, Outlet, Port
from .graphs import PICTURE, local, pictures, stack
from .models import KLEIN, SPRITES_LORA
from .recipes import SHEET, recipe_box
from .sheets import TALL, Example, Sheet

SCALES = (0, 0.5, 1, 1.5)
FADE = "0:1, 0.5:0"
HALVES = "put the scene of image 1 into two styles, one at the left and one at the right"
# A mask is fitted to the output, so that only the shape counts: a half of this is a half of that.
SIDE = 1024
LOW = 900


def schedule(graph: Graph, loras: Ref, text: str = "0:1", pictures: str = "") -> Ref:
    return graph.add(
        "Flux2EditLoraSchedule",
        "FLUX.2 LoRA Schedule",
        lora_stack=loras,
        lora="all",
        schedule=text,
        between="linear",
        clock="steps",
        pictures=pictures,
    )


def region(graph: Graph, loras: Ref, number: int, mask: Ref) -> Ref:
    return graph.add(
        "Flux2EditLoraRegion",
        f"FLUX.2 LoRA Region: LoRA {number}",
        lora_stack=loras,
        lora=str(number),
        text=0.0,
        references=0.0,
        blocks="",
        mask=mask,
    )


def _scales() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph, ((SPRITES_LORA, 1.0),))
    by_picture = schedule(graph, loras, pictures=", ".join(f"{scale:g}" for scale in SCALES))
    at = local(graph, KLEIN, SHEET, images=images, loras=by_picture, size="match image")
    graph.set(at["size"], batch_size=len(SCALES))
    same = graph.add(
        "LatentBatchSeedBehavior", "Same noise", samples=at["size"], seed_behavior="fixed"
    )
    graph.set(at["sampler"], latent_image=same)
    single = graph.add("RebatchImages", "Single pictures", images=at["decode"], batch_size=1)
    grid = graph.add(
        "ImageGrid",
        "Image Grid",
        images=single,
        columns=2,
        cell_width=at["size"].out(1),
        cell_height=at["size"].out(2),
        padding=8,
    )
    graph.set(at["save"], images=grid)
    box = recipe_box(at, 1, "Edit in one batch (FLUX.2)", 580)
    ports = list(box.inputs)
    place = [port.name for port in ports].index("guidance_scale")
    ports[place:place] = [
        Port("batch_size", at["size"], "batch_size"),
        Port("columns", grid, "columns"),
    ]
    models, apply, texts, sampled = box.columns
    box = box._replace(
        columns=(models, apply, (*texts, same), (*sampled, single, grid)),
        inputs=tuple(ports),
        outputs=(Outlet("grid", grid), *box.outputs),
    )
    middle = (*images.values(), by_picture)
    return Sheet(graph, ((loras,), middle, (box.title,), (at["save"],)), (box,), (440, TALL))


def halves(graph: Graph) -> tuple[Ref, Ref, Box]:
    """The masks of the left and the right, and the box that they are made in."""
    none = graph.add("SolidMask", "Nothing", value=0.0, width=SIDE, height=SIDE)
    half = graph.add("SolidMask", "Left", value=1.0, width=SIDE // 2, height=SIDE)
    left = graph.add(
        "MaskComposite", "Left mask", destination=none, source=half, x=0, y=0, operation="add"
    )
    right = graph.add("InvertMask", "Right mask", mask=left)
    box = Box(
        "Left and right",
        "FLUX.2 LoRA Edit",
        f"Two masks of {SIDE} pixels that together are the whole picture.",
        ((none, half), (left, right)),
        (Port("left_width", half, "width"),),
        (Outlet("left", left), Outlet("right", right)),
        (400, 110),
    )
    return left, right, box


def _regions() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph)
    left, right, masks = halves(graph)
    first = region(graph, loras, 1, left)
    second = region(graph, first, 2, right)
    at = local(graph, KLEIN, HALVES, images=images, loras=second, size="match image")
    box = recipe_box(at, 1, "Edit with two regions (FLUX.2)")._replace(size=(400, 540))
    # The way to the second region runs above the first, which is as low as its LoRAs and mask.
    picture = images["image_1"]
    columns = ((masks.title, loras), (LOW, first), (picture, second), (box.title,), (at["save"],))
    return Sheet(graph, columns, (masks, box), (400, TALL))


def _fade() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph, ((SPRITES_LORA, 1.0),))
    fading = schedule(graph, loras, FADE)
    at = local(graph, KLEIN, SHEET, images=images, loras=fading, size="match image")
    box = recipe_box(at, 1, "Edit with a fading LoRA (FLUX.2)", 540)
    middle = (*images.values(), fading)
    return Sheet(graph, ((loras,), middle, (box.title,), (at["save"],)), (box,), (440, TALL))


EXAMPLES = (
    Example(
        "Compare LoRA scales in one run (klein)",
        "Four pictures of **one batch** and one noise, which differ in the LoRA's scale alone: "
        f"**{', '.join(f'{scale:g}' for scale in SCALES)}**, left to right, then down, as "
        "**pictures** of FLUX.2 LoRA Schedule lists them. At 0 it is the model without the LoRA.",
        _scales,
        KLEIN,
        "other multipliers, as many as **batch_size**; negative ones turn a slider LoRA round. "
        "Where the memory ends at four pictures, take Compare LoRA scales, which makes one after "
        "the other.",
    ),
    Example(
        "Two LoRAs, two regions (klein)",
        "Choose **two LoRAs** for klein 4B in slots 1 and 2 of the stack, and put their trigger "
        "words into the prompt: LoRA 1 acts in the left half, LoRA 2 in the right, in one run. "
        "**text** and **references** are at 0, which keeps each inside its mask; "
        "attention still carries a little of it over the edge.",
        _regions,
        KLEIN,
        "masks of your own: right-click **image 1**, **Open in MaskEditor**, paint, and lead its "
        "MASK to a region; **Invert Mask** gives the rest. Raise **text** where a LoRA or its "
        "trigger word does too little.",
    ),
    Example(
        "Style LoRA that fades out (klein)",
        f"**{FADE}** in FLUX.2 LoRA Schedule: in full at the first step, less at each, gone from "
        "half of the steps on (of four steps: 1, 0.5, 0, 0). The LoRA decides what the picture is "
        "laid out like, and the model draws its detail without it.",
        _fade,
        KLEIN,
        "your own style LoRA. **0:0, 0.5:1** fades in: the model's layout, the LoRA's surface; "
        "**0:1, 1:0** fades over the whole run.",
    ),
)
