"""The examples in four to six nodes: the work is in a box, and the box can be opened.

Each shows one thing that this pack's nodes do together with nodes of ComfyUI's own.
"""

from host.graph import Graph, Ref

from .blueprints import EDIT, MAKE, edit_box, ports_of
from .folding import Box, Outlet, Port
from .graphs import PICTURE, local, pictures, stack
from .models import (
    DEV,
    EDIT_LORA,
    KLEIN,
    KLEIN_BASE,
    KLEIN_KV,
    SPRITES_LORA,
    STYLE_LORA,
    TURBO_LORA,
    Family,
)
from .sheets import TALL, Example, Sheet, recipe_sheet

MEET = "the subject of image 1 in the place of image 2, in the light of image 2"
WINTER = "show the scene of image 1 in winter: snow on the ground, low sun, everything else kept"
HIGHER = "<sks> front view high-angle shot medium shot"
BEHIND = "<sks> back view eye-level shot medium shot"
SPRITE = "GRPZA, dwarf warrior red beard, white background, game asset, pixel art"
COMBINE = (
    "put the subject of image 1 into the place of image 2, in the light and colours of image 3"
)
# Noise at each step: half of the picture is kept, its detail is drawn anew.
FINER = "0.5, 0.42, 0.32, 0.19, 0"
SHEET = "2x2 sprite sheet"
FOLDER = "flux2"


def recipe_box(at: dict[str, Ref], images: int, title: str, height: int = 520) -> Box:
    """The box of ``local``'s nodes, with a widget for the megapixels of a match."""
    names = tuple(f"image_{number}" for number in range(1, images + 1))
    ports = ports_of(at, names)
    place = [port.name for port in ports].index("image_size") + 1
    ports.insert(place, Port("megapixels", at["size"], "megapixels"))
    box = edit_box(at, tuple(ports), bool(images))
    return box._replace(title=title, size=(440, height))


def of_preset(box: Box) -> Box:
    """The same, where no picture gives the size."""
    ports = tuple(port for port in box.inputs if port.inner not in ("image", "megapixels"))
    return box._replace(inputs=ports)


def _edit(family: Family, prompt: str, *loras: tuple[str, float]) -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    lora = stack(graph, loras)
    at = local(graph, family, prompt, images=images, loras=lora, size="match image")
    return recipe_sheet(graph, (*images.values(), lora), recipe_box(at, 3, EDIT), at["save"])


def _cfg() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    lora = stack(graph)
    at = local(graph, KLEIN_BASE, WINTER, images=images, loras=lora, size="match image", cfg=True)
    box = recipe_box(at, 3, "Image Edit with CFG (FLUX.2)", 580)
    prompt, *others = box.inputs
    negative = Port("negative_prompt", at["conditioning"], "negative_prompt")
    box = box._replace(inputs=(prompt, negative, *others))
    return recipe_sheet(graph, (*images.values(), lora), box, at["save"])


def _three() -> Sheet:
    """The stack is in the box, as in the blueprint: three pictures are a column of their own."""
    graph = Graph()
    images = pictures(graph, *[PICTURE] * 3)
    lora = stack(graph)
    at = local(graph, DEV, COMBINE, images=images, loras=lora, size="landscape_4_3")
    box = edit_box(at, tuple(ports_of(at, tuple(images))), True)
    box = of_preset(box)
    ports = tuple(
        port._replace(node=lora) if port.name == "lora_stack" else port for port in box.inputs
    )
    models, apply, *others = box.columns
    columns = (models, (lora, *apply), *others)
    box = box._replace(inputs=ports, columns=columns, size=(440, 540))
    return recipe_sheet(graph, tuple(images.values()), box, at["save"])


def _make() -> Sheet:
    graph = Graph()
    lora = stack(graph, ((STYLE_LORA, 1.0),))
    at = local(graph, DEV, SPRITE, images={}, loras=lora, size="landscape_4_3")
    box = edit_box(at, tuple(ports_of(at, ())), False)
    return recipe_sheet(graph, (lora,), box._replace(title=MAKE, size=(440, 480)), at["save"])


def _kv_cache() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE, PICTURE)
    loras = stack(graph)
    at = local(graph, KLEIN_KV, MEET, images=images, loras=loras, size="match image")
    cache = graph.add("FluxKVCache", "Flux KV Cache", model=at["apply"])
    graph.set(at["sampler"], model=cache)
    box = recipe_box(at, 2, "Edit with the KV cache (FLUX.2 klein 9B KV)")
    models, apply, *others = box.columns
    box = box._replace(columns=(models, (*apply, cache), *others))
    return recipe_sheet(graph, (*images.values(), loras), box, at["save"])


def _turbo() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph, ((TURBO_LORA, 1.0), (EDIT_LORA, 1.0)))
    family = DEV._replace(steps=8)
    at = local(graph, family, HIGHER, images=images, loras=loras, size="match image")
    graph.set(at["sampler"], preset="dev with Turbo LoRA")
    box = recipe_box(at, 3, EDIT)
    # The preset stands in their place.
    ports = [port for port in box.inputs if port.inner not in ("guidance", "steps")]
    place = [port.name for port in ports].index("seed")
    ports.insert(place, Port("preset", at["sampler"], "preset"))
    box = box._replace(inputs=tuple(ports))
    return recipe_sheet(graph, (*images.values(), loras), box, at["save"])


def _upscale() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph)
    at = local(graph, KLEIN, WINTER, images=images, loras=loras, size="match image")
    larger = graph.add(
        "ImageScaleBy",
        "Upscale Image By",
        image=at["decode"],
        upscale_method="lanczos",
        scale_by=2.0,
    )
    encoded = graph.add("VAEEncode", "VAE Encode", pixels=larger, vae=at["vae"])
    # By noise and not by denoise, whose share of the schedule means more the larger the picture.
    sigmas = graph.add("ManualSigmas", "Manual Sigmas", sigmas=FINER)
    second = graph.add(
        "Flux2EditSampler",
        "FLUX.2 Sampler (second pass)",
        model=at["apply"],
        positive=at["conditioning"],
        latent_image=encoded,
        seed=42,
        steps=KLEIN.steps,
        guidance=KLEIN.guidance,
        sampler_name="euler",
        denoise=1.0,
        preset="as set",
        sigmas=sigmas,
    )
    tiled = graph.add(
        "VAEDecodeTiled",
        "VAE Decode (Tiled)",
        samples=second,
        vae=at["vae"],
        tile_size=512,
        overlap=64,
        temporal_size=64,
        temporal_overlap=8,
    )
    graph.set(at["save"], images=tiled)
    before = graph.add("PreviewImage", "Before the second pass", images=at["decode"])
    box = recipe_box(at, 1, "Edit, then enlarge (FLUX.2)", 560)
    ports = list(box.inputs)
    place = [port.name for port in ports].index("guidance_scale")
    ports[place:place] = [
        Port("enlarge_by", larger, "scale_by"),
        Port("second_pass", sigmas, "sigmas"),
    ]
    box = box._replace(
        columns=(*box.columns, (larger, encoded, sigmas, second, tiled)),
        inputs=tuple(ports),
        outputs=(Outlet("image", tiled), Outlet("before", at["decode"]), box.outputs[1]),
    )
    return recipe_sheet(graph, (*images.values(), loras), box, at["save"], before)


def _folder() -> Sheet:
    graph = Graph()
    every = graph.add("LoadImageDataSetFromFolder", "Load Image (from Folder)", folder=FOLDER)
    loras = stack(graph)
    images = {"image_1": every}
    at = local(
        graph, KLEIN, WINTER, images=images, loras=loras, size="match image", prefix="folder/edit"
    )
    box = recipe_box(at, 3, EDIT)
    return recipe_sheet(graph, (every, loras), box, at["save"])


def _scales() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    scales = tuple(
        graph.add("PrimitiveFloat", f"scale {number}", value=value)
        for number, value in enumerate((0.0, 0.5, 1.0, 1.5), 1)
    )
    every = graph.add(
        "CreateList",
        "Create List",
        **{f"inputs.input{number}": scale for number, scale in enumerate(scales)},
    )
    loras = stack(graph, ((SPRITES_LORA, 1.0),))
    graph.set(loras, **{"lora_1.scale": every})
    at = local(graph, KLEIN, SHEET, images=images, loras=loras, size="match image")
    grid = graph.add(
        "ImageGrid",
        "Image Grid",
        images=at["decode"],
        columns=2,
        cell_width=at["size"].out(1),
        cell_height=at["size"].out(2),
        padding=8,
    )
    graph.set(at["save"], images=grid)
    numbers = Box(
        "LoRA scales",
        "FLUX.2 LoRA Edit",
        "A list of scales: what takes it runs once for each.",
        (scales, (every,)),
        tuple(Port(f"scale_{n}", scale, "value") for n, scale in enumerate(scales, 1)),
        (Outlet("scales", every),),
        (440, 170),
    )
    box = recipe_box(at, 1, "Edit once for each scale (FLUX.2)", 540)
    ports = list(box.inputs)
    place = [port.name for port in ports].index("guidance_scale")
    ports.insert(place, Port("columns", grid, "columns"))
    box = box._replace(
        columns=(*box.columns[:-1], (*box.columns[-1], grid)),
        inputs=tuple(ports),
        outputs=(Outlet("grid", grid), *box.outputs),
    )
    sheet = recipe_sheet(graph, (*images.values(), loras), box, at["save"])
    columns = ((numbers.title,), *sheet.columns[1:])
    return sheet._replace(boxes=(numbers, box), columns=columns, note=(440, TALL))


EXAMPLES = (
    Example(
        "Edit one picture (klein)",
        "Choose a picture, say what to change, Run. The result has the picture's own size, cut to "
        "a multiple of 16, of at most 1 megapixel. klein distilled takes **four steps**.",
        lambda: _edit(KLEIN, WINTER),
        KLEIN,
        "a LoRA for klein 4B: set **lora_1** to **installed** or **hugging face**, and put its "
        "trigger words into the prompt. More pictures go to **image_2** and **image_3**.",
    ),
    Example(
        "Edit one picture (dev)",
        "Choose a picture, Run: the LoRA turns the **camera** round it. Its trigger words are the "
        "whole prompt: **\\<sks\\>**, a view, an angle, a distance.",
        lambda: _edit(DEV, BEHIND, (EDIT_LORA, 1.0)),
        DEV,
        "another view: front, left side, right side; low-angle, elevated, high-angle shot; "
        "close-up or wide shot. In 8 steps: Edit in 8 steps.",
    ),
    Example(
        "Edit with CFG (klein base)",
        "klein base: the **negative** is connected in the box and guidance is above 1, so each "
        "step runs twice, with the picture in both halves.",
        _cfg,
        KLEIN_BASE,
        "20 steps are quick, 50 are its makers' own. A LoRA trained on klein base fits the "
        "distilled klein too, in four steps.",
    ),
    Example(
        "Edit with three references (dev)",
        "Three pictures in one prompt: they are **image 1**, **image 2** and **image 3**, by their "
        "sockets. Each is read at up to 1 megapixel.",
        _three,
        DEV,
        "delete a Load Image that you do not need, and its number from the prompt. LoRAs: a "
        "FLUX.2 LoRA Stack to **lora_stack**.",
    ),
    Example(
        "Text to image with LoRAs (dev)",
        "A picture from text with a stack of up to three LoRAs. The prompt is the one of the "
        "LoRA's own page.",
        _make,
        DEV,
        "another subject between the trigger words; or **none** in the stack and any prompt.",
    ),
    Example(
        "Edit with the KV cache (klein 9B KV)",
        "Two references, read once: ComfyUI's own **Flux KV Cache** stands behind Apply FLUX.2 "
        "LoRA Stack in the box, so that the steps after the first skip the pictures. Only this "
        "model is made for it; others get worse.",
        _kv_cache,
        KLEIN_KV,
        "choose your two pictures and say what is to happen to them; put a LoRA trained for "
        "klein 9B into the stack.",
    ),
    Example(
        "Edit in 8 steps (dev, Turbo LoRA)",
        "The **Turbo LoRA** makes 8 steps enough instead of 28. The LoRA below it turns the "
        "camera: its trigger words are the prompt.",
        _turbo,
        DEV,
        "put your own LoRA in the second slot and its trigger words into the prompt. Keep Turbo "
        "at scale 1: **preset** brings its 8 steps, their own sigmas and guidance 2.5.",
    ),
    Example(
        "Edit and enlarge, decoded in tiles (klein)",
        "Edits at 1 megapixel, enlarges that by 2, and draws the detail in a **second pass** of "
        "the same model with the same LoRAs and references; no upscale model is needed. At 4 "
        "megapixels the picture is decoded **in tiles**, in a fraction of the memory.",
        _upscale,
        KLEIN,
        "**second_pass** is the noise of its four steps: from 0.3 it keeps what is there, from 0.5 "
        "it draws detail anew, from 0.8 it is another picture. Where the GPU's memory ends, take "
        "tiles of 256 in the box.",
    ),
    Example(
        "Edit a folder of pictures (klein)",
        f"One edit for each picture of a folder. Put them into **input/{FOLDER}** below ComfyUI's "
        "folder, press **R**, and choose it. All are edited before the first is saved, so Stop "
        "loses them: take some dozens at a time.",
        _folder,
        KLEIN,
        "look into **output/folder**; the files are numbered and do not keep their names.",
    ),
    Example(
        "Compare LoRA scales (klein)",
        "One queue, one picture a scale, **side by side in reading order**: the list of scales "
        "runs the stack and all behind it once for each, with the same seed: 0 (without the "
        "LoRA), 0.5, 1, 1.5.",
        _scales,
        KLEIN,
        "a picture of one object on a plain ground shows it best; then your own LoRA, its "
        "trigger in the prompt. The box's **image** gives the single pictures.",
    ),
)
