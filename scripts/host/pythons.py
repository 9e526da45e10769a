"""The supported Pythons: where this machine has them, and the environment of each."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .environment import ROOT
from .steps import SetupError

# pyproject's requires-python is the first of these; a test compares them.
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")

# The setup as that Python's own work: it makes an environment of its own version.
SETUP = """
import sys
sys.path.insert(0, sys.argv[1])
from host.environment import SetupError, prepare
try:
    python = prepare().python
except SetupError as error:
    sys.exit(str(error))
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.write(str(python))
"""


def find(version: str) -> Path:
    """A Python of ``version``, e.g. "3.12": on the path, or among pyenv's. Raises SetupError."""
    for candidate in _candidates(version):
        # pyenv's commands on the path print an error unless their version is chosen.
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        reply = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if reply.returncode == 0 and reply.stdout.strip() == version:
            return Path(candidate)
    raise SetupError(f"There is no Python {version} on this machine's path, nor among pyenv's.")


def environment_of(python: Path) -> Path:
    """The interpreter of the test environment made with ``python``, set up when absent.

    Raises SetupError in words for a person.
    """
    variables = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "python"
        command = [str(python), "-c", SETUP, str(ROOT / "scripts"), str(answer)]
        if subprocess.run(command, env=variables).returncode:
            raise SetupError(f"The environment of {python} could not be made; see above.")
        return Path(answer.read_text("utf-8"))


def _candidates(version: str) -> Iterator[str]:
    found = shutil.which(f"python{version}")
    if found:
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = (pyenv / "versions").glob(f"{version}.*/bin/python")
    # The newest patch release first; 3.12.10 comes after 3.12.9.
    for place in sorted(places, key=lambda path: _numbers(path.parts[-3]), reverse=True):
        yield str(place)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
