"""What the registry would publish: complete, nothing more, and a ComfyUI loads it as it is."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pathspec
import pytest

from host import server as servers
from host.client import Client

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "example_workflows", "flux2", "locales", "lora_loader", "network", "nodes", "remote",
    "subgraphs", "web",
}  # fmt: skip
FILES = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "__init__.py",
    "pyproject.toml",
    "requirements.txt",
}
NODES = 12


def published() -> list[str]:
    """The tracked and the new files, less what .comfyignore names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    lines = (ROOT / ".comfyignore").read_text("utf-8").splitlines()
    ignored = pathspec.PathSpec.from_lines("gitwildmatch", lines)
    names = (name for name in listed.stdout.splitlines() if (ROOT / name).is_file())
    return sorted(name for name in names if not ignored.match_file(name))


def test_it_holds_what_a_user_needs_and_nothing_more():
    tops = {name.partition("/")[0] for name in published()}
    assert tops == FOLDERS | FILES
    assert sum((ROOT / name).stat().st_size for name in published()) < 3_000_000
    odd = [name for name in published() if name.endswith((".pyc", ".safetensors", ".env", ".log"))]
    assert not odd


def test_nothing_in_it_names_a_machine_or_holds_a_token():
    secret = re.compile(
        r"(/home/|/root/|/Users/|C:\\Users)\w+|hf_[A-Za-z0-9]{20,}|Bearer [A-Za-z0-9]{20,}"
    )
    for name in published():
        if not name.endswith((".jpg", ".png")):
            text = (ROOT / name).read_text("utf-8")
            assert not secret.search(text), f"{name}: {secret.search(text)}"


@pytest.mark.host
def test_an_empty_comfyui_loads_it(tmp_path):
    comfyui = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (comfyui / "main.py").is_file():
        pytest.skip("COMFYUI_PATH names no ComfyUI; run ./scripts/test, which sets one up")
    base = tmp_path / "base"
    place = base / "custom_nodes" / "flux2-lora-edit"
    for name in published():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place / name)
    before = {path for path in place.rglob("*") if "__pycache__" not in path.parts}
    with servers.start(comfyui, base) as server, Client(server.url) as client:
        ours = [name for name in client.get("/object_info") if name.startswith("Flux2Edit")]
        assert len(ours) == NODES, server.log()[-3000:]
        assert "(IMPORT FAILED)" not in server.log()
        address = f"{server.url}/extensions/flux2-lora-edit"
        for name in ours:
            help_page = client.http.get(f"{address}/docs/{name}.md", timeout=60)
            assert help_page.ok and "## Inputs" in help_page.text
        words = client.get("/i18n")
        assert {"en", "zh", "ja"} <= set(words) and set(words["ja"]["nodeDefs"]) == set(ours)
        templates = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
        assert sorted(client.get("/workflow_templates")["flux2-lora-edit"]) == templates
        blueprints = {entry["name"] for entry in client.get("/global_subgraphs").values()}
        assert blueprints >= {path.stem for path in (ROOT / "subgraphs").glob("*.json")}
    # Nothing is written into the pack's own folder, which a snapshot would share.
    assert {path for path in place.rglob("*") if "__pycache__" not in path.parts} == before
