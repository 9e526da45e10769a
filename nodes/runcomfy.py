"""RunComfy FLUX.2 LoRA: the hosted models as a node. Paid once, and never lost."""

from __future__ import annotations

import logging
import math

from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io

from ..remote.errors import InvalidInput, RemoteError, Stopped
from ..remote.worker import start
from .host import show_text
from .runcomfy_account import open_account
from .runcomfy_inputs import Chosen
from .runcomfy_outputs import as_batches, cost_of, info_text, preview
from .runcomfy_run import OPEN, Run
from .runcomfy_schema import MAX_BATCH, MAX_MINUTES, schema

logger = logging.getLogger(__name__)


class Flux2EditRunComfy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema()

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        """The account, so that another one runs again; the inputs are the host's to compare.

        Never a new value for the same account: that would bill each run anew.
        """
        try:
            account = open_account()
            if str(inputs.get("resume_request_id") or "").strip().lower() == OPEN:
                ids = [entry.request_id for entry in account.journal.open_requests()]
                return f"{account.journal.account} {' '.join(ids)}"
            return account.journal.account
        except (RemoteError, OSError, ValueError):
            return "no account"

    @classmethod
    async def execute(
        cls,
        prompt: str,
        mode: str,
        image_size: str,
        guidance_scale: float,
        num_inference_steps: int,
        seed: int,
        output_format: str,
        batch_count: int,
        image_1=None,
        image_2=None,
        image_3=None,
        image_urls: str = "",
        lora_stack=None,
        timeout_minutes: int = 30,
        resume_request_id: str = "",
    ) -> io.NodeOutput:
        _check_range("batch_count", batch_count, 1, MAX_BATCH)
        _check_range("timeout_minutes", timeout_minutes, 1, MAX_MINUTES)
        node_id = cls.hidden.unique_id
        run = Run(lambda text: show_text(text, node_id), timeout_minutes)
        try:
            if resume_request_id.strip():
                await run.resume(resume_request_id)
            else:
                await run.generate(
                    Chosen(
                        prompt,
                        mode,
                        image_size,
                        guidance_scale,
                        num_inference_steps,
                        seed,
                        output_format,
                        batch_count,
                        (image_1, image_2, image_3),
                        image_urls,
                        lora_stack,
                    )
                )
        except Stopped as stopped:
            show_text(str(stopped), node_id)
            logger.info("RunComfy: %s", stopped)
            raise InterruptProcessingException from None
        return await _outputs(run)


async def _outputs(run: Run) -> io.NodeOutput:
    done = [request for request in run.requests if request.outcome is not None]
    pictures = [picture for request in done for picture in request.outcome.pictures]
    text = _summary(run)
    images, masks = await start(lambda: as_batches(pictures))
    shown = await start(lambda: preview(images, text))
    await run.delivered()
    plan = run.plan
    info = info_text(
        run.model,
        run.requests,
        run.open_requests,
        run.price,
        image_size=plan.size if plan else None,
        notices=plan.notices if plan else [],
        seconds=round(run.elapsed, 3),
    )
    run.show(text)
    logger.info("RunComfy: %s", text)
    request_ids = "\n".join(request.request_id for request in done)
    return io.NodeOutput(images, masks, request_ids, info, ui=shown)


def _summary(run: Run) -> str:
    """What the run came to, in a line; what went wrong with some of a batch in the next ones."""
    done = sum(request.outcome is not None for request in run.requests)
    cost = cost_of(run.requests)
    parts = [f"{done} of {len(run.requests)} delivered", f"{run.elapsed:.0f} s"]
    if cost is not None:
        parts.append(f"cost ${cost:g}")
    errors = dict.fromkeys(str(r.error) for r in run.requests if r.error is not None)
    notices = run.plan.notices if run.plan else []
    return "\n".join([" · ".join(parts), *notices, *errors])


def _check_range(name: str, value: float, least: int, most: int) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise InvalidInput(name, f"{name} is {value:g}; it takes {least} to {most}.")


def hosted_nodes(disable_api_nodes: bool) -> list[type[io.ComfyNode]]:
    """The nodes that need the internet: none where ComfyUI runs with ``--disable-api-nodes``."""
    return [] if disable_api_nodes else [Flux2EditRunComfy]
