"""The rooms' dependencies run one way, and the project's files agree with each other."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = set(
    "aiohttp comfy comfy_api comfy_execution comfy_extras execution folder_paths latent_preview "
    "node_helpers nodes server".split()
)
"""The host's modules, and the server library that its routes are written with."""

MAY_IMPORT = {
    "flux2": set(),
    "network": set(),
    "lora_loader": {"flux2", "network"},
    "remote": {"flux2", "network"},
    "nodes": {"flux2", "network", "lora_loader", "remote"},
}
MAY_KNOW_COMFY = ("nodes/host.py", "lora_loader/patch/")
"""All that imports the host: a host function that is renamed is one edit outside ``patch/``."""
MOST_MODULES = 10
"""Side by side on a level; ``__init__`` is the level itself."""


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """(first name, inside the pack) of each import in ``path``, wherever it stands."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module.split(".")[0], False))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module or "").split(".")] if node.module else [*base]
            names = [target] if target else [[alias.name] for alias in node.names]
            found += [(name[0], True) for name in names if name]
    return found


BESIDE = {"filelock", "host", "PIL", "pyarrow", "ray", "requests"}
"""All that the fleet imports: it drives ComfyUI from outside, and has an environment of its own."""

CASES = [(room, path) for room in MAY_IMPORT for path in modules(room)]


@pytest.mark.parametrize(
    ("room", "path"), CASES, ids=[str(path.relative_to(ROOT)) for _, path in CASES]
)
def test_dependencies_run_one_way(room, path):
    name = str(path.relative_to(ROOT).as_posix())
    for target, inside in imports(path):
        if inside:
            assert target == room or target in MAY_IMPORT[room], f"{name} imports {target}"
        elif target in HOST:
            assert name.startswith(MAY_KNOW_COMFY), f"{name} imports {target}"
        else:
            # The pack's folder is not on sys.path, and a room's name could be anybody's.
            assert target not in MAY_IMPORT, f"{name} imports {target} absolutely"


@pytest.mark.parametrize("path", modules("fleet"), ids=lambda path: path.name)
def test_the_fleet_stands_beside_the_pack(path):
    for target, inside in imports(path):
        assert target == "fleet" if inside else target in BESIDE | set(sys.stdlib_module_names)


@pytest.mark.parametrize("room", [*MAY_IMPORT, "fleet"])
def test_no_level_is_crowded(room):
    names = [path for path in modules(room) if path.name != "__init__.py"]
    levels = Counter(path.parent.relative_to(ROOT).as_posix() for path in names)
    assert {level: n for level, n in levels.items() if n > MOST_MODULES} == {}


def test_only_declared_packages_are_imported():
    declared = {"filelock", "huggingface_hub", "numpy", "PIL", "requests", "safetensors"}
    # urllib3 and certifi are what requests is made of, installed with it; they are used directly.
    # scipy is the host's own, as torch is: it stands in its requirements.
    foundation = {"torch", "scipy", "urllib3", "certifi"}
    allowed = declared | HOST | foundation | set(sys.stdlib_module_names)
    for room in MAY_IMPORT:
        for path in modules(room):
            for target, inside in imports(path):
                assert inside or target in allowed, f"{path.name} imports {target}"


def test_requirements_equal_the_projects_dependencies():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert re.findall(r'"(.+?)"', block) == listed


def test_no_module_is_called_utils():
    assert not [p for room in MAY_IMPORT for p in modules(room) if "util" in p.stem]
