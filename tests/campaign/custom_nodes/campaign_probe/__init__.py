"""Test-only: tells the stand-in where a prompt is (it may kill us there), and three small nodes.

A point is one GET of the stand-in, answered when the prompt may go on.
"""

import asyncio
import functools
import inspect
import os
import sys
import threading
import time
import urllib.request

import execution
import nodes
from aiohttp import web
from comfy_api.latest import ui
from server import PromptServer

ORIGIN = os.environ["RUNCOMFY_API_BASE"]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def tell(point):
    with DIRECT.open(f"{ORIGIN}/probe/{point}", timeout=30) as reply:
        reply.read()


def told(owner, name, before, after):
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args, **options):
        tell(before)
        try:
            return original(*args, **options)
        finally:
            tell(after)

    setattr(owner, name, wrapped)


told(ui.PreviewImage, "__init__", "preview", "previewed")
told(nodes.SaveImage, "save_images", "saving", "saved")
told(execution.PromptQueue, "task_done", "ending", "ended")


class Strike:
    """One fault at one step of the pack: a function's ``nth`` call, before or after it ran.

    ``what`` names an exception, "stop" (the user presses Stop right there) or "sibling" (the node
    beside ours fails right there). Replaced wherever the pack has the function by this name.
    """

    current = None

    def __init__(self, module, name, when, what, nth):
        self.when, self.what, self.nth = when, what, nth
        self.calls, self.struck = 0, threading.Event()
        self.undo = []
        owner, _, attribute = name.rpartition(".")
        pack = [m for n, m in list(sys.modules.items()) if "flux2-lora-edit" in n and m is not None]
        (home,) = [ui] if module == "ui" else [m for m in pack if m.__name__.endswith(f".{module}")]
        if owner:
            places = [getattr(home, owner)]
        else:
            original = getattr(home, attribute)
            places = [m for m in {home, *pack} if vars(m).get(attribute) is original]
        for place in places:
            original = getattr(place, attribute)
            self.undo.append((place, attribute, vars(place)[attribute]))
            setattr(place, attribute, self.wrapped(original))
        Strike.current = self

    def wrapped(self, original):
        @functools.wraps(original)
        async def waiting(*args, **options):
            mine = self.counted()
            if mine and self.when == "before":
                self.strike()
            answer = await original(*args, **options)
            if mine and self.when == "after":
                self.strike()
            return answer

        @functools.wraps(original)
        def plain(*args, **options):
            mine = self.counted()
            if mine and self.when == "before":
                self.strike()
            answer = original(*args, **options)
            if mine and self.when == "after":
                self.strike()
            return answer

        return waiting if inspect.iscoroutinefunction(original) else plain

    def counted(self):
        self.calls += 1
        return self.calls == self.nth

    def strike(self):
        self.struck.set()
        if self.what == "stop":
            nodes.interrupt_processing()
        elif self.what != "sibling":
            raise EXCEPTIONS[self.what]

    def end(self):
        for place, attribute, original in reversed(self.undo):
            setattr(place, attribute, original)
        Strike.current = None


EXCEPTIONS = {
    "RuntimeError": RuntimeError("injected"),
    "MemoryError": MemoryError(),
    "RecursionError": RecursionError("injected"),
    "OSError": OSError(28, "injected: no space left"),
    "ValueError": ValueError("injected: exceeds the limit (4300 digits)"),
    "CancelledError": asyncio.CancelledError(),
    "KeyboardInterrupt": KeyboardInterrupt(),
}


@PromptServer.instance.routes.post("/campaign/strike")
async def begin_strike(request):
    order = await request.json()
    if Strike.current is not None:
        Strike.current.end()
    try:
        Strike(**order)
    except (AttributeError, ValueError, KeyError) as error:
        return web.json_response({"error": f"no such step: {order['module']} {error}"}, status=400)
    return web.json_response({})


@PromptServer.instance.routes.get("/campaign/strike")
@PromptServer.instance.routes.delete("/campaign/strike")
async def end_strike(request):
    strike = Strike.current
    if strike is not None and request.method == "DELETE":
        strike.end()
    return web.json_response({"struck": strike is not None and strike.struck.is_set()})


class CampaignLines:
    """A list of prompts, one a line."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "test", "split", ("STRING",), (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"multiline": True})}}

    def split(self, text):
        return (text.splitlines(),)


class CampaignHold:
    """Pictures pass through after some seconds: the rest of a long prompt."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "hold", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}}

    def hold(self, images):
        tell("hold")
        return (images,)


class CampaignFail:
    """A sibling that fails after some seconds, or (below 0) as soon as a strike says so."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "fail", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"min": -1.0, "max": 60.0})}}

    async def fail(self, seconds):
        await asyncio.sleep(max(seconds, 0.0))
        end = time.monotonic() + 5.0
        while seconds < 0 and time.monotonic() < end:
            if Strike.current is None or Strike.current.struck.is_set():
                break
            await asyncio.sleep(0.005)
        raise RuntimeError("the sibling fails, as it should")


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (CampaignLines, CampaignHold, CampaignFail)}
