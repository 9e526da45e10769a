"""Names of installed files: found by what the user meant, never outside the folders."""

import pytest

from flux2_lora_edit.lora_loader.sources import SourceError, resolve_installed

LISTED = [
    "ink.safetensors",
    "styles/sea.safetensors",
    "styles\\sky.safetensors",
    "a/twin.safetensors",
    "b/twin.safetensors",
    "old.pt",
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ink.safetensors", "ink.safetensors"),
        ("ink", "ink.safetensors"),
        ("styles/sea.safetensors", "styles/sea.safetensors"),
        ("styles\\sea.safetensors", "styles/sea.safetensors"),
        ("styles/sky.safetensors", "styles\\sky.safetensors"),
        ("styles\\sky", "styles\\sky.safetensors"),
        ("moved/elsewhere/sea.safetensors", "styles/sea.safetensors"),
        ("sea", "styles/sea.safetensors"),
        ("a/twin", "a/twin.safetensors"),
        ("./ink.safetensors", "ink.safetensors"),
    ],
)
def test_found(name, found):
    assert resolve_installed(name, LISTED) == found


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "a/../../x",
        "/etc/passwd",
        "C:\\x.safetensors",
        "\\\\h\\s\\x",
        "..",
        "a\0b",
    ],
)
def test_never_outside(name):
    with pytest.raises(SourceError, match="outside ComfyUI's loras folders"):
        resolve_installed(name, LISTED)


def test_a_miss_lists_the_near_names():
    with pytest.raises(SourceError, match=r"no LoRA 'inkk'.*Near names: ink\.safetensors\.$"):
        resolve_installed("inkk", LISTED)
    with pytest.raises(SourceError, match="no name near it"):
        resolve_installed("zzzzzzzz", LISTED)
    with pytest.raises(SourceError, match="hold no .safetensors file"):
        resolve_installed("ink", ["old.pt"])


def test_an_ambiguous_name_lists_the_candidates():
    with pytest.raises(SourceError, match=r"a/twin\.safetensors, b/twin\.safetensors"):
        resolve_installed("twin", LISTED)


def test_pickles_are_refused_by_name():
    with pytest.raises(SourceError, match=r"\.pt file.*can carry code"):
        resolve_installed("old.pt", LISTED)


@pytest.mark.parametrize("name", ["", "  ", None])
def test_nothing_chosen(name):
    with pytest.raises(SourceError, match="No LoRA file is chosen"):
        resolve_installed(name, LISTED)
