"""The examples of a region: painted over, cut out, edited, and put back with nothing else changed.

What the model sees decides which way is right. To change what is there it needs the crop as a
reference; to replace it it must not see it, and the noise mask holds the surroundings.
"""

from typing import Any, NamedTuple

from host.graph import Graph, Output, Ref

from .folding import Box, Outlet, Port
from .graphs import PICTURE, hosted, local, pictures, stack
from .models import DEV, KLEIN, Family
from .sheets import TALL, Example, Sheet, recipe_sheet

TITLE = "Edit a Region (FLUX.2)"
RECOLOUR = "make the thing in the middle of image 1 golden, keep its shape and the light"
PATTERN = "give the thing in the middle of image 1 the colours of image 2, keep its shape"
EMPTY = "an empty sandy beach, the ground and the light as around it"
WIDER = "a wide view of the same place, the ground, the sky and the light go on"
LANE = 60
Pair = tuple[Ref | Output, Ref | Output]


class Regional(NamedTuple):
    """The nodes of ``local`` by name, and those of a region: what a box of them is made of."""

    at: dict[str, Ref]
    crop: Ref
    paste: Ref
    masked: tuple[Ref, ...]


def region_nodes(
    graph: Graph,
    family: Family,
    prompt: str,
    painted: Pair,
    loras: Ref,
    references: dict[str, Ref] | None = None,
    *,
    replace: bool = False,
    seed: int = 42,
) -> Regional:
    """``local`` on the crop of a picture and its mask, and its result put back.

    ``references`` are image_2 and image_3. With ``replace`` the crop is not a reference: what is
    painted is drawn anew under the noise mask.
    """
    crop = region_crop(graph, painted)
    images: dict[str, Any] = {} if replace else {"image_1": crop.out(1)} | (references or {})
    at = local(
        graph, family, prompt, images=images, loras=loras, size="custom", prefix="region", seed=seed
    )
    graph.set(at["size"], width=crop.out(3), height=crop.out(4))
    masked: tuple[Ref, ...] = ()
    if replace:
        encoded = graph.add("VAEEncode", "VAE Encode", pixels=crop.out(1), vae=at["vae"])
        mask = graph.add(
            "SetLatentNoiseMask", "Set Latent Noise Mask", samples=encoded, mask=crop.out(2)
        )
        graph.set(at["sampler"], latent_image=mask)
        masked = encoded, mask
    paste = region_paste(graph, crop, at["decode"])
    graph.set(at["save"], images=paste)
    if replace:  # last, for new ids count the nodes
        del graph.prompt[at.pop("size")]
    return Regional(at, crop, paste, masked)


def region_crop(graph: Graph, painted: Pair) -> Ref:
    return graph.add(
        "Flux2EditRegionCrop",
        "FLUX.2 Region Crop",
        image=painted[0],
        mask=painted[1],
        context=2.0,
        megapixels=1.0,
        max_upscale=2.0,
        grow=0,
        feather=16,
    )


def region_paste(graph: Graph, crop: Ref, edit: Ref) -> Ref:
    return graph.add(
        "Flux2EditRegionPaste",
        "FLUX.2 Region Paste",
        region=crop,
        image=edit,
        align="auto",
        colour="auto",
        keep_detail=True,
    )


def region_box(made: Regional, references: tuple[str, ...] = (), *loras: Ref) -> Box:
    """The box of a region, whose first two inputs are the picture and its mask."""
    at, crop = made.at, made.crop
    ports = [
        Port("prompt", at["conditioning"], "prompt"),
        Port("image_1", crop, "image"),
        Port("mask", crop, "mask"),
        *(Port(name, at["conditioning"], name) for name in references),
        Port("lora_stack", loras[0] if loras else at["apply"], "lora_stack"),
        *(Port(name, crop, name) for name in ("context", "grow", "feather")),
        Port("guidance_scale", at["sampler"], "guidance"),
        Port("num_inference_steps", at["sampler"], "steps"),
        Port("seed", at["sampler"], "seed"),
        *(Port(f"{name}_name", at[key], f"{name}_name") for key, name in LOADED),
    ]
    sized = (at["size"],) if "size" in at else ()
    return Box(
        TITLE,
        "Image generation and editing/Inpaint image",
        "Edits what is painted over in a picture and leaves every other pixel as it was. In the "
        "prompt, image 1 is the region and its surroundings. Set up for dev; for klein distilled "
        f"take {KLEIN.steps} steps.",
        (
            (at["model"], at["clip"], at["vae"]),
            (*loras, at["apply"], crop),
            (at["conditioning"], *sized, *made.masked),
            (at["sampler"], at["decode"]),
            (made.paste,),
        ),
        tuple(ports),
        (
            Outlet("image", made.paste),
            Outlet("edit", at["decode"]),
            Outlet("report", made.paste, 2),
        ),
        (440, 520),
    )


LOADED = (("model", "unet"), ("clip", "clip"), ("vae", "vae"))


def _edit(family: Family, prompt: str, count: int) -> Sheet:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * count)
    loras = stack(graph)
    painted = images.pop("image_1")
    made = region_nodes(graph, family, prompt, (painted, painted.out(1)), loras, images)
    box = region_box(made, tuple(images))
    return recipe_sheet(graph, (painted, *images.values(), loras), box, made.at["save"])


def _remove() -> Sheet:
    graph = Graph()
    painted = pictures(graph, PICTURE)["image_1"]
    loras = stack(graph)
    pair = painted, painted.out(1)
    made = region_nodes(graph, KLEIN, EMPTY, pair, loras, replace=True)
    box = region_box(made)._replace(title="Remove or replace (FLUX.2)")
    inside = Port("object", made.at["conditioning"], "image_1")
    box = box._replace(inputs=(*box.inputs[:3], inside, *box.inputs[3:]))
    return recipe_sheet(graph, (painted, loras), box, made.at["save"])


def _outpaint() -> Sheet:
    graph = Graph()
    picture = pictures(graph, PICTURE)["image_1"]
    loras = stack(graph)
    # Its own feathering would paint over the picture: Region Crop's fades the edit instead.
    padded = graph.add(
        "ImagePadForOutpaint",
        "Pad Image for Outpainting",
        image=picture,
        left=256,
        top=0,
        right=256,
        bottom=0,
        feathering=0,
    )
    pair = padded, padded.out(1)
    made = region_nodes(graph, KLEIN, WIDER, pair, loras, replace=True)
    box = region_box(made)._replace(title="Outpaint (FLUX.2)")
    columns = ((picture,), (padded, loras), (box.title,), (made.at["save"],))
    return Sheet(graph, columns, (box,), (440, TALL))


def _hosted() -> Sheet:
    graph = Graph()
    painted = pictures(graph, PICTURE)["image_1"]
    loras = stack(graph)
    crop = region_crop(graph, (painted, painted.out(1)))
    at = hosted(graph, RECOLOUR, images={"image_1": crop.out(1)}, loras=loras, prefix="region")
    paste = region_paste(graph, crop, at["hosted"])
    graph.set(at["save"], images=paste)
    # The link from crop to paste runs above the hosted node.
    columns = ((painted,), (crop, loras), (LANE, at["hosted"]), (paste,), (at["save"],))
    return Sheet(graph, columns, note=(340, 600))


PAINT = (
    "right-click **image 1**, **Open in MaskEditor**, paint over what is to change, Save. Before "
    "anything is painted, Run stops and says so"
)
KEPT = "Further than **feather** pixels from the paint nothing changes, not by one bit"

EXAMPLES = (
    Example(
        "Edit a region (klein)",
        f"Choose a picture; {PAINT}. The painted part and its surroundings are cut out, edited at "
        "their own scale (a small thing gets up to four times the pixels) and put back. "
        f"{KEPT}. The crop is **image 1** of the prompt.",
        lambda: _edit(KLEIN, RECOLOUR, 1),
        KLEIN,
        "more **grow** when the edit needs room that you did not paint, more **context** when the "
        "model should see more around it. To take a thing away, use Remove an object.",
    ),
    Example(
        "Edit a region (dev, reference)",
        f"{PAINT[0].upper()}{PAINT[1:]}. The second picture is **image 2** of the prompt: its "
        f"colours, a pattern, a face. {KEPT}.",
        lambda: _edit(DEV, PATTERN, 2),
        DEV,
        "a LoRA in the stack works on the region alone. The box's **edit** is the crop as the "
        "model made it, and **report** says what was moved back into place.",
    ),
    Example(
        "Remove an object (klein)",
        f"{PAINT[0].upper()}{PAINT[1:]}. Paint the whole object, and its shadow. The prompt says "
        "what is there **instead**. The model must not see the object, so the crop is no "
        "reference here: the **noise mask** lets it draw anew what was painted, in the "
        f"surroundings it keeps. {KEPT}.",
        _remove,
        KLEIN,
        "to put another object there, connect its picture to **object** and name it in the "
        "prompt: the object of image 1, on a beach. **grow** by 8 to 16 where an edge of the old "
        "one is left.",
    ),
    Example(
        "Outpaint (klein)",
        "**Pad Image for Outpainting** says how far the picture grows, on which sides. The prompt "
        "describes the whole scene. What is new is drawn, and fades into the picture over "
        "**feather** pixels; the rest of the picture stays as it was, bit for bit.",
        _outpaint,
        KLEIN,
        "a quarter of the picture at a time is what models do best; run it again on the result "
        "for more. At **feather** 0 not one pixel of the picture changes.",
    ),
    Example(
        "Edit a region (RunComfy)",
        f"{PAINT[0].upper()}{PAINT[1:]}. Only the crop is sent, edited by RunComfy, which **bills "
        "each request** (set your token in Settings → FLUX.2 LoRA Edit → RunComfy), and put back "
        f"here. {KEPT}.",
        _hosted,
        None,
        "a smaller **megapixels** of Region Crop sends less; LoRAs must be on Hugging Face or at a "
        "link.",
    ),
)
