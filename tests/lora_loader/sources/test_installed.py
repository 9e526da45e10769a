"""Names of installed files: found by what the user meant, never outside the folders."""

import ntpath
import os

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
        ("INK", "ink.safetensors"),
        ("Ink.SafeTensors", "ink.safetensors"),
        ("Styles\\Sea", "styles/sea.safetensors"),
        ("elsewhere/SEA", "styles/sea.safetensors"),
        ("A/twin", "a/twin.safetensors"),
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


@pytest.mark.parametrize("name", ["INK", "deep/INK"])
def test_several_names_that_differ_in_case_are_listed(name):
    listed = ["ink.safetensors", "Ink.safetensors"]
    with pytest.raises(SourceError, match=r"Near names: Ink\.safetensors, ink\.safetensors\."):
        resolve_installed(name, listed)
    assert resolve_installed("ink", listed) == "ink.safetensors"


@pytest.fixture
def disk(tmp_path):
    """A loras folder under its name and a link's, with a folder of another disk linked in."""
    for name in ("loras/styles/sea", "other/far", "data/sky", "outside/secret", "other/twin",
                 "loras/twin"):  # fmt: skip
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "link").symlink_to(tmp_path / "loras")
    (tmp_path / "loras" / "linked").symlink_to(tmp_path / "data")
    return tmp_path


ON_DISK = ["styles/sea.safetensors", "linked/sky.safetensors", "far.safetensors",
           "twin.safetensors"]  # fmt: skip


def found_on(disk, path, *roots):
    folders = [disk / root for root in roots or ("loras", "other")]
    return resolve_installed(str(path), ON_DISK, lambda: folders)


@pytest.mark.parametrize("root", ["loras", "link"])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("loras/styles/sea.safetensors", "styles/sea.safetensors"),
        ("link/styles/sea.safetensors", "styles/sea.safetensors"),
        ("loras/linked/sky.safetensors", "linked/sky.safetensors"),
        ("data/sky.safetensors", "linked/sky.safetensors"),
        ("other/far", "far.safetensors"),
        ("loras/moved/sea.safetensors", "styles/sea.safetensors"),
    ],
)
def test_an_absolute_path_inside_the_folders(disk, root, path, name):
    """As LoRA Manager gives it, whatever links the path or the folder is spelled through."""
    for spelled in (str(disk / path), str(disk / path).replace("/", "\\")):
        assert found_on(disk, spelled, root, "other") == name
    if not path.startswith("link") or root == "link":
        assert found_on(disk, str(disk / path).upper(), root, "other") == name


@pytest.mark.parametrize(
    "path",
    ["outside/secret.safetensors", "outside/sea.safetensors", "loras2/styles/sea.safetensors",
     "loras/../outside/secret.safetensors", "\ud800/sea.safetensors"],
)  # fmt: skip
def test_an_absolute_path_outside_the_folders(disk, path):
    with pytest.raises(SourceError, match="outside ComfyUI's loras folders"):
        found_on(disk, disk / path)


def test_a_file_that_an_earlier_folder_hides_is_not_taken_for_it(disk):
    assert found_on(disk, disk / "loras" / "twin.safetensors") == "twin.safetensors"
    with pytest.raises(SourceError, match="an earlier loras folder has another file of that name"):
        found_on(disk, disk / "other" / "twin.safetensors")


def test_on_windows_a_strangers_share_is_not_asked(monkeypatch):
    """Looking at ``\\\\host\\share`` logs in there with the user's own name."""
    asked = []

    def realpath(path):
        asked.append(str(path))
        return ntpath.normpath(str(path))

    monkeypatch.setattr(os, "path", ntpath)
    monkeypatch.setattr(ntpath, "realpath", realpath)
    monkeypatch.setattr(ntpath, "exists", lambda path: False)
    roots = [r"D:\AI\models\loras"]
    for path in (r"d:\ai\models\LORAS\Styles\Sea.safetensors", "D:/AI/models/loras/styles/sea"):
        assert resolve_installed(path, ON_DISK, lambda: roots) == "styles/sea.safetensors"
    for path in (r"\\host\share\sea.safetensors", r"C:\loras\sea.safetensors"):
        with pytest.raises(SourceError, match="outside"):
            resolve_installed(path, ON_DISK, lambda: roots)
    assert not [path for path in asked if "host" in path or path.startswith("C:")]


def test_pickles_are_refused_by_name():
    with pytest.raises(SourceError, match=r"\.pt file.*can carry code"):
        resolve_installed("old.pt", LISTED)


@pytest.mark.parametrize("name", ["", "  ", None])
def test_nothing_chosen(name):
    with pytest.raises(SourceError, match="No LoRA file is chosen"):
        resolve_installed(name, LISTED)
