"""Small files, whole or not at all."""

import os
import threading
from pathlib import Path

import pytest

from flux2_lora_edit.network.files import json_object, sync_folder, write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_file_that_is_there_stays_where_it_is_not_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "salt"
    write_atomically(path, b"first", replace=False)
    write_atomically(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["salt"]


def test_nor_where_the_file_system_has_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*names: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    test_a_file_that_is_there_stays_where_it_is_not_to_be_replaced(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes are posix")
def test_a_private_file_is_its_owners_from_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    opened = os.open

    def spy(path: Path, *rest: int) -> int:
        descriptor = opened(path, *rest)
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    write_atomically(tmp_path / "token", b"x", private=True)
    write_atomically(tmp_path / "note", b"x")
    assert modes[0] == 0o600
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_leaves_the_old_file_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    sync_folder(tmp_path)  # some file systems cannot: no error


def test_many_writers_of_one_file_leave_one_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [bytes([65 + n]) * 50_000 for n in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in texts
    assert os.listdir(tmp_path) == ["a"]


def test_a_number_too_long_to_be_read_stays_the_text_that_it_is() -> None:
    """Python refuses to read 4,300 digits; nobody computes with 41."""
    for digits in ("9" * 5000, "-" + "7" * 41):
        assert json_object(f'{{"a": {digits}, "b": [{digits}]}}'.encode()) == {
            "a": digits,
            "b": [digits],
        }
    assert json_object(b'{"a": 1e5, "b": %b}' % (b"9" * 40)) == {"a": 1e5, "b": 10**40 - 1}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"<html>", b"nan", b'{"a": ', b"\xff\xfe", b"[" * 10**5]
)
def test_what_is_no_object_is_none(data: bytes) -> None:
    assert json_object(data) is None
