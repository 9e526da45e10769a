"""What the RunComfy node looks like: its inputs, outputs and their tooltips."""

from __future__ import annotations

from comfy_api.latest import io

from ..remote.payload import EDIT, MAX_SEED, SIZES
from .host import CATEGORY, SAID_AGAIN
from .runcomfy_inputs import AUTO, MODES
from .runcomfy_run import OPEN

MAX_BATCH = 8
MAX_MINUTES = 240
FORMATS = ["png", "jpeg", "webp"]

LoraStackType = io.Custom("LORA_STACK")


def schema() -> io.Schema:
    """Ids, names and order are permanent."""
    limits = EDIT.document["properties"]
    guidance, steps = limits["guidance_scale"], limits["num_inference_steps"]
    return io.Schema(
        node_id="Flux2EditRunComfy",
        display_name="RunComfy FLUX.2 LoRA",
        category=CATEGORY,
        description=(
            "FLUX.2 with up to three LoRAs on RunComfy's machines, billed by RunComfy: text to "
            "image, or editing up to three pictures. Each request is submitted once, recorded "
            "before it is paid, and can be fetched again by its id without paying. The token "
            "is set in ComfyUI's settings (RunComfy) or as RUNCOMFY_API_TOKEN."
        ),
        search_aliases=[
            "runcomfy",
            "api",
            "hosted",
            "remote",
            "cloud",
            "flux 2 lora edit",
            "flux.2",
            "image edit",
            "text to image",
        ],
        inputs=[
            io.String.Input(
                "prompt",
                multiline=True,
                default="",
                tooltip=(
                    "What the picture should show, or what to change. Pictures are 'image 1' "
                    "to 'image 3' in their order: sockets first, then image_urls."
                ),
            ),
            *(
                io.Image.Input(
                    f"image_{number}",
                    optional=True,
                    tooltip=(
                        "A picture to edit, sent inside the request; a batch counts as several "
                        "pictures. At most three with image_urls."
                    ),
                )
                for number in (1, 2, 3)
            ),
            io.String.Input(
                "image_urls",
                multiline=True,
                default="",
                optional=True,
                placeholder="https://",
                tooltip=(
                    "Public https addresses of pictures to edit, one a line; RunComfy's "
                    "machines fetch them. They come after the connected pictures."
                ),
            ),
            LoraStackType.Input(
                "lora_stack",
                optional=True,
                tooltip=(
                    "Up to three LoRAs from Hugging Face or a link, scale 0 to 4. A file that "
                    "lies on this machine alone cannot be used there; nothing is uploaded."
                ),
            ),
            io.Combo.Input(
                "mode",
                options=list(MODES),
                default=AUTO,
                tooltip="auto edits as soon as there is a picture, else makes one from text.",
            ),
            io.Combo.Input(
                "image_size",
                options=[AUTO, *SIZES],
                default=AUTO,
                tooltip=(
                    "auto takes the preset nearest in shape to the first picture, or "
                    "landscape_4_3 for text to image. square_hd 1024x1024, square 512x512, "
                    "portrait_4_3 768x1024, portrait_16_9 576x1024, landscape_4_3 1024x768, "
                    "landscape_16_9 1024x576."
                ),
            ),
            io.Float.Input(
                "guidance_scale",
                default=guidance["default"],
                min=guidance["minimum"],
                max=guidance["maximum"],
                step=0.1,
                tooltip="How closely the picture follows the prompt.",
            ),
            io.Int.Input(
                "num_inference_steps",
                default=steps["default"],
                min=steps["minimum"],
                max=steps["maximum"],
                tooltip="Sampling steps at RunComfy.",
            ),
            io.Int.Input(
                "seed",
                default=0,
                min=-1,
                max=MAX_SEED,
                control_after_generate=io.ControlAfterGenerate.fixed,
                tooltip=(
                    "The same seed and inputs give the same picture. -1 draws one here and "
                    "reports it in info. A changed seed is a new paid request."
                ),
            ),
            io.Combo.Input(
                "output_format",
                options=FORMATS,
                default="png",
                tooltip="How RunComfy stores the picture; png loses nothing.",
            ),
            io.Int.Input(
                "batch_count",
                default=1,
                min=1,
                max=MAX_BATCH,
                tooltip="Pictures to make: one paid request each, with seed, seed + 1, ...",
            ),
            io.Int.Input(
                "timeout_minutes",
                default=30,
                min=1,
                max=MAX_MINUTES,
                optional=True,
                advanced=True,
                tooltip=(
                    "How long to wait. Afterwards the job goes on there, and its result can "
                    "be fetched by its id without paying again."
                ),
            ),
            io.String.Input(
                "resume_request_id",
                default="",
                optional=True,
                advanced=True,
                tooltip=(
                    "Request ids whose results to fetch instead of running the prompt, or "
                    f"'{OPEN}' for every open request of this account. Submits nothing and "
                    "costs nothing."
                ),
            ),
        ],
        outputs=[
            # Lists, because pictures of different sizes cannot share a batch. Equal sizes do:
            # the usual run is a list of one batch, which downstream is just a batch.
            io.Image.Output(
                "image",
                display_name="image",
                is_output_list=True,
                tooltip="The pictures: one batch, or a batch for each change of size.",
            ),
            io.Mask.Output(
                "mask",
                display_name="mask",
                is_output_list=True,
                tooltip="1 where a picture is transparent; as many as pictures.",
            ),
            io.String.Output(
                "request_id",
                display_name="request_id",
                tooltip="RunComfy's id of each delivered request, one a line.",
            ),
            io.String.Output(
                "info",
                display_name="info",
                tooltip="JSON: request ids, seeds, cost, timings, model, open requests.",
            ),
        ],
        hidden=[io.Hidden.unique_id],
        **SAID_AGAIN,
    )
