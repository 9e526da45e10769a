"""A process that downloads one file, to be killed. Started by test_crash.py.

Arguments: pack root, authority (PEM), origin, URL, target. Then it reads lines from
standard input: a number N forks a child that downloads and kills itself with SIGKILL at its Nth
touch of the target's folder (0: never); it answers with the child's exit status.
"""

import importlib
import os
import signal
import ssl
import sys
import types
from pathlib import Path


def main() -> None:
    root, authority, origin, url, target = sys.argv[1:]
    package = types.ModuleType("flux2_lora_edit")
    package.__path__ = [root]
    sys.modules["flux2_lora_edit"] = package
    name = "flux2_lora_edit.network."
    address = importlib.import_module(name + "address")
    connection = importlib.import_module(name + "connection")
    download = importlib.import_module(name + "download")
    client = importlib.import_module(name + "client")
    context = ssl.create_default_context(cafile=authority)
    wanted = download.Wanted(url=url, target=Path(target), key="k")
    asker = client.HttpClient(
        address.PUBLIC_ONLY.allowing(origin),
        client.Limits(backoff_s=0.05),
        transport=connection.Transport(tls=lambda: context),
    )
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            kill_at(int(line), os.path.dirname(target))
            download.download(wanted, asker, lambda done, total: None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def kill_at(number: int, folder: str) -> None:
    """Arms SIGKILL for just before the ``number``th file operation in ``folder``."""
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate") and any(
            isinstance(arg, str | bytes | os.PathLike) and folder in os.fsdecode(arg)
            for arg in args
        ):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    if number:
        sys.addaudithook(hook)


main()
