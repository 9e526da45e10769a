"""ComfyUI imported once and forked for every start: a host in one second instead of ten.

Arguments: ComfyUI's folder, the base directory, then ComfyUI's own. Up to the fork ComfyUI's own
``main.py`` has been imported (its modules, not its ``__main__`` part) and no thread has begun; the
child runs it as ``__main__`` with a port and folders of its own, custom nodes and all. This pack is
never imported here: what it draws at import (its session) belongs to one process.

A line on standard input is ``{"arguments": {...}, "environment": {...}, "log": path}``, where the
arguments are those of ComfyUI's own parsed ones that are to change; the answer is the child's
process id.
"""

import asyncio
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys

# What the pack and ComfyUI's server import late; nothing of it starts a thread.
WARM = (
    "requests", "urllib3", "filelock", "safetensors.torch", "PIL.Image", "PIL.PngImagePlugin",
    "PIL.WebPImagePlugin", "PIL.JpegImagePlugin", "aiohttp.web", "http.client", "encodings.idna",
)  # fmt: skip
PR_SET_PDEATHSIG = 1


def main(comfyui: str, base: str, *arguments: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    orders = os.fdopen(os.dup(0))
    redirect(os.path.join(base, "zygote.log"))
    os.chdir(comfyui)
    sys.path[0] = comfyui
    sys.argv = ["main.py", *arguments, "--base-directory", base]
    runpy.run_path("main.py", run_name="zygote")
    for name in WARM:
        importlib.import_module(name)
    import nodes  # ComfyUI's

    asyncio.run(nodes.init_builtin_extra_nodes())
    asyncio.run(nodes.init_builtin_api_nodes())
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(f"{len(threads)} threads before the first fork")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are not ours to ask about
    gc.collect()
    gc.freeze()
    answers.write("ready\n")
    for line in orders:
        child = os.fork()
        if child == 0:
            os.close(answers.fileno())
            os.close(orders.fileno())
            become(**json.loads(line))
        answers.write(f"{child}\n")


def become(arguments: dict[str, object], environment: dict[str, str], log: str) -> None:
    """This process as a ComfyUI server, to its end; gone as soon as the zygote is."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        redirect(log)
        os.environ.update(environment)
        from comfy.cli_args import args

        vars(args).update(arguments)
        runpy.run_path("main.py", run_name="__main__")
    finally:
        os._exit(1)


def redirect(log: str) -> None:
    """Nothing on standard input, and both outputs into a file."""
    source = os.open(os.devnull, os.O_RDONLY)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(source, 0)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(source)
    os.close(sink)


if __name__ == "__main__":
    main(*sys.argv[1:])
