"""RunComfy FLUX.2 LoRA: the hosted models as a node. Paid once, and never lost.

The node takes its inputs as lists, so that the items of a list are one run: planned and priced
before the first is paid, and one that fails takes none of the others with it.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from ..flux2.image_size import PRESETS, PRESETS_IN_WORDS
from ..flux2.references import IMAGES, NUMBERS
from ..remote.account import api_origin, open_account
from ..remote.api.models import EDIT, MAX_IMAGES, MAX_LORAS, MAX_SCALE, MAX_SEED, TEXT_TO_IMAGE
from ..remote.context import start
from ..remote.errors import InvalidInput, RemoteError, Stopped
from ..remote.pictures.media import Picture
from ..remote.plan import AUTO, MAX_BATCH, MODES, Settings
from ..remote.run import MAX_MINUTES, OPEN, Run
from . import host
from .host import LoraStackType, io, ui
from .remote_loras import check_image_urls, remote_loras

logger = logging.getLogger(__name__)


def as_batches(pictures: Iterable[Picture]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """IMAGE batches [n, height, width, 3] and their MASKs [n, height, width], in order.

    Neighbours of one size make one batch, so the usual run gives one batch as any node does, and a
    change of size begins the next one: nothing is resized, cropped or left out.
    """
    images, masks = [], []
    for (height, width, _), group in groupby(pictures, key=lambda picture: picture.rgb.shape):
        members = list(group)
        opaque = np.zeros((height, width), np.float32)
        images.append(torch.from_numpy(np.stack([p.rgb for p in members])))
        stacked = np.stack([opaque if p.mask is None else p.mask for p in members])
        masks.append(torch.from_numpy(stacked))
    return images, masks


def settings_of(inputs: Mapping[str, list[Any]]) -> list[Settings]:
    """What each item of a list run sets, as ComfyUI maps lists: its own value of each input, the
    last one of a shorter list. Raises InvalidInput."""
    for name, given in inputs.items():
        if not given:
            raise InvalidInput(f"{name} is an empty list.")
    for text in filter(None, inputs.get("image_urls", ())):
        check_image_urls(text, os.environ)
    # What several items share is read once.
    arrays = {
        id(image): image.detach().cpu().float().numpy()
        for name in IMAGES
        for image in inputs.get(name, ())
        if image is not None
    }
    stacks = {
        id(stack): remote_loras(stack, should_stop=host.throw_exception_if_processing_interrupted)
        for stack in inputs.get("lora_stack", ())
        if stack is not None
    }
    items = []
    for number in range(max(map(len, inputs.values()), default=1)):
        values = {name: given[min(number, len(given) - 1)] for name, given in inputs.items()}
        stack = values.pop("lora_stack", None)
        found = {name: arrays.get(id(values.pop(name, None))) for name in IMAGES}
        images = {name: image for name, image in found.items() if image is not None}
        items.append(Settings(images=images, loras=stacks.get(id(stack), ()), **values))
    return items


class Flux2EditRunComfy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        limits, pictures, loras = EDIT.properties, NUMBERS[MAX_IMAGES], NUMBERS[MAX_LORAS]
        guidance, steps = limits["guidance_scale"], limits["num_inference_steps"]
        formats = limits["output_format"]
        return host.schema(
            node_id="Flux2EditRunComfy",
            display_name="RunComfy FLUX.2 LoRA",
            is_input_list=True,
            description=(
                f"FLUX.2 with up to {loras} LoRAs on RunComfy's machines, billed by RunComfy: text "
                f"to image, or editing up to {pictures} pictures. Each request is submitted once "
                "and recorded before it is paid. The same request again (same inputs, same seed) "
                "is fetched for nothing as long as RunComfy keeps it. A list is one run. "
                "The token is set in Settings, FLUX.2 LoRA Edit, RunComfy or as RUNCOMFY_API_TOKEN."
            ),
            search_aliases=[
                "runcomfy", "api", "hosted", "remote", "cloud", "flux 2 lora edit", "flux.2",
                "image edit", "text to image",
            ],
            inputs=[
                io.String.Input(
                    "prompt", multiline=True, default="",
                    tooltip=(
                        "What the picture should show, or what to change. Pictures are 'image 1' "
                        f"to 'image {MAX_IMAGES}' in their order: sockets first, then image_urls."
                    ),
                ),
                *(
                    io.Image.Input(
                        name, optional=True,
                        tooltip=(
                            "A picture to edit, sent inside the request; a batch counts as several "
                            f"pictures. At most {pictures} with image_urls."
                        ),
                    )
                    for name in IMAGES
                ),
                io.String.Input(
                    "image_urls", multiline=True, default="", optional=True,
                    placeholder="image_urls: https addresses of pictures, one a line",
                    tooltip=(
                        "Public https addresses of pictures to edit, one a line; RunComfy's "
                        "machines fetch them. They come after the connected pictures."
                    ),
                ),
                LoraStackType.Input(
                    "lora_stack", optional=True,
                    tooltip=(
                        f"Up to {loras} LoRAs from Hugging Face or a link, scale 0 to "
                        f"{MAX_SCALE:g}. A file that lies on this machine alone cannot be used "
                        "there; nothing is uploaded."
                    ),
                ),
                io.Combo.Input(
                    "mode", options=list(MODES), default=AUTO,
                    tooltip="auto edits as soon as there is a picture, else makes one from text.",
                ),
                io.Combo.Input(
                    "image_size", options=[AUTO, *PRESETS], default=AUTO,
                    tooltip=(
                        "auto takes the preset nearest in shape to the first picture, or "
                        f"{TEXT_TO_IMAGE.properties['image_size']['default']} for text to image. "
                        f"{PRESETS_IN_WORDS}."
                    ),
                ),
                io.Float.Input(
                    "guidance_scale", default=guidance["default"],
                    min=guidance["minimum"], max=guidance["maximum"], step=0.1,
                    tooltip="How closely the picture follows the prompt.",
                ),
                io.Int.Input(
                    "num_inference_steps", default=steps["default"],
                    min=steps["minimum"], max=steps["maximum"],
                    tooltip="Sampling steps at RunComfy.",
                ),
                io.Int.Input(
                    "seed", default=0, min=-1, max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip=(
                        "The same seed and inputs are the same request, which is paid once. -1 "
                        "draws one here and says which; Run again draws no new one until an input "
                        "changes. A changed seed is a new paid request."
                    ),
                ),
                io.Combo.Input(
                    "output_format", default=formats["default"],
                    options=sorted(formats["enum"], key=lambda kind: kind != formats["default"]),
                    tooltip="How RunComfy stores the picture; png loses nothing.",
                ),
                io.Int.Input(
                    "batch_count", default=1, min=1, max=MAX_BATCH,
                    tooltip="Pictures to make: one paid request each, with seed, seed + 1, ...",
                ),
                io.Int.Input(
                    "timeout_minutes", default=30, min=1, max=MAX_MINUTES, optional=True,
                    advanced=True,
                    tooltip=(
                        "How long to wait. Afterwards the job goes on there, and its result can "
                        "be fetched by its id without paying again."
                    ),
                ),
                io.String.Input(
                    "resume_request_id", default="", optional=True, advanced=True,
                    tooltip=(
                        "Request ids whose results to fetch instead of running the prompt, or "
                        f"'{OPEN}' for every open request of this account. Submits nothing and "
                        "costs nothing."
                    ),
                ),
                io.Float.Input(
                    "max_cost", default=0.0, min=0.0, max=10_000.0, step=0.01, optional=True,
                    advanced=True,
                    tooltip=(
                        "US dollars that this run may cost by RunComfy's catalogue (price x batch "
                        "x list); above it, or where no price is known, nothing is submitted. "
                        "0: no limit."
                    ),
                ),
            ],
            outputs=[
                # Lists, because pictures of different sizes cannot share a batch. Equal sizes do:
                # the usual run is a list of one batch, which downstream is just a batch.
                io.Image.Output(
                    "image", display_name="image", is_output_list=True,
                    tooltip="The pictures: one batch, or a batch for each change of size.",
                ),
                io.Mask.Output(
                    "mask", display_name="mask", is_output_list=True,
                    tooltip="1 where a picture is transparent; as many as pictures.",
                ),
                io.String.Output(
                    "request_id", display_name="request_id",
                    tooltip="RunComfy's id of each delivered request, one a line.",
                ),
                io.String.Output(
                    "info", display_name="info",
                    tooltip="JSON: request ids, seeds, cost, timings, model, open requests.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        """The API, and what is open if that is asked for; the inputs are the host's to compare.

        Not the account: a renewed token would run, and bill, everything again.
        """
        try:
            asked = inputs.get("resume_request_id")
            if isinstance(asked, list) and asked and str(asked[0]).strip().lower() == OPEN:
                journal = open_account(host.private_folder(), os.environ).journal
                return " ".join(entry.request_id for entry in journal.open_requests())
            return api_origin(os.environ)[0]
        except (RemoteError, OSError, ValueError):
            return "no account"

    @classmethod
    async def execute(
        cls, timeout_minutes=(30,), resume_request_id=(), max_cost=(), **inputs
    ) -> io.NodeOutput:
        run = Run(
            partial(open_account, host.private_folder(), os.environ),
            host.processing_interrupted,
            lambda text: host.show_text(text, cls.hidden.unique_id),
            max(timeout_minutes),
        )
        try:
            if ids := "\n".join(filter(str.strip, resume_request_id)):
                pictures = await run.resume(ids)
            else:
                items = await start(partial(settings_of, inputs))
                limit = min(filter(None, max_cost), default=0.0)
                pictures = await run.generate(items, limit)
            # Outputs of one item are batches of their own: a list stays one for what follows.
            made = await start(lambda: [as_batches(found) for found in pictures])
            batches, masks = ([one for pair in made for one in pair[side]] for side in (0, 1))
            try:  # ComfyUI's temp folder; a help, without which the pictures are delivered too
                saved = await start(
                    lambda: [i for b in batches for i in ui.PreviewImage(b).as_dict()["images"]]
                )
            except Exception as error:
                logger.warning("RunComfy: no preview", exc_info=True)
                saved = []
                run.notices.append(f"The preview could not be written ({type(error).__name__}).")
            request_ids, info, summary = await run.hand_over()
        except BaseException as error:
            lost = await run.lost(error)
            if not isinstance(lost, Stopped):
                raise lost from None
            run.show(str(lost))
            logger.info("RunComfy: %s", lost)
            raise host.InterruptProcessingException from None
        host.when_held(run.close)
        shown = {"images": saved, "animated": (False,), **host.show_text(summary, None)}
        return io.NodeOutput(batches, masks, request_ids, info, ui=shown)
