"""What every command in ``scripts/`` starts with: a new enough Python, then the environment.

Kept to the syntax of Python 3.6, so that an old Python gets a sentence instead of a SyntaxError.
"""

import importlib
import os
import shutil
import subprocess
import sys

OLDEST, NEWEST = (3, 10), (3, 13)
# Set for the second start, inside the environment.
READY = "FLUX2_LORA_EDIT_READY"


def main(name):
    """Run ``host.commands.<name>`` with the arguments of this process, in the environment."""
    ready = os.environ.pop(READY, None)
    if not ready and not OLDEST <= sys.version_info[:2] <= NEWEST:
        _use_another_python()
    command = importlib.import_module("host.commands." + name)
    # Before the setup, which takes minutes: --help and wrong options should not.
    options = command.parse(sys.argv[1:])
    if ready:
        sys.exit(command.run(options))
    from . import environment

    try:
        python, comfyui = environment.prepare(tests=name != "fleet")
    except environment.SetupError as error:
        sys.exit("\n" + str(error))
    except KeyboardInterrupt:
        sys.exit("\nStopped; the next run goes on from here.")
    if not os.environ.get("COMFYUI_PATH"):
        # Every server starts in half the time with compiled modules, and their folders are ours.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ[READY] = "1"
    os.environ["COMFYUI_PATH"] = str(comfyui)
    _replace(str(python))


def _use_another_python():
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and _answers(found):
            _replace(found)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info > OLDEST:
        print(f"[host] Python {version} is newer than what is tested (3.13); trying it")
        return
    sys.exit(
        f"Python 3.10 or newer is needed, and this is {version} ({sys.executable}). Install one "
        f"that is newer and start the script with it: python3.12 {sys.argv[0]}"
    )


def _answers(python):
    # A version manager leaves commands on the path that do nothing but print an error.
    quiet = subprocess.DEVNULL
    return subprocess.call([python, "-c", ""], stdout=quiet, stderr=quiet) == 0


def _replace(python):
    """Go on in another interpreter, as this very process where the system can."""
    sys.stdout.flush()
    arguments = [python, *sys.argv]
    if os.name == "posix":
        os.execv(python, arguments)  # noqa: S606  (the path is our own)
    sys.exit(subprocess.call(arguments))
