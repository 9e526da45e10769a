"""What a fault inside the record leaves; the other steps are in ``tests/campaign/inject.py``."""

from pathlib import Path

import pytest
from remote_support import MODEL, journal_of, new_token

from flux2_lora_edit.remote.errors import JournalError
from flux2_lora_edit.remote.journal import Journal


def test_an_intent_that_failed_behind_its_line_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is on the disk and then fsync, or the file's compaction, fails: nothing was sent.

    A living process would otherwise wait for itself, until timeout_minutes, at the next press.
    """
    journal, written = journal_of(tmp_path, new_token()), []
    append = Journal._append

    def failing(self: Journal, entry) -> None:
        append(self, entry)
        written.append(entry)
        if len(written) == 1:
            raise OSError(28, "no space left")

    monkeypatch.setattr(Journal, "_append", failing)
    with pytest.raises(JournalError):
        journal.claim(MODEL, {"seed": 1}, None)
    assert journal.open_requests() == []
    entry, is_new = journal.claim(MODEL, {"seed": 1}, None)
    assert is_new and entry.key != written[0].key
