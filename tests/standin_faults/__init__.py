"""The library of faults: what each does, and what a client that can be trusted makes of it.

They are brought to the stand-in from outside: ``Standin`` here is the plain server with all of
them, each struck for the accounts that ask for it by name.
"""

from collections.abc import Mapping
from typing import Any

import standin_server

from .kinds import Fault
from .media import MEDIA
from .poll import CANCEL, RESULT, STATUS
from .submit import SUBMIT

FAULTS: Mapping[str, Fault] = {
    fault.name: fault for fault in (*SUBMIT, *STATUS, *RESULT, *CANCEL, *MEDIA)
}


class Standin(standin_server.Standin):
    """The stand-in with all of these faults; the arguments are the plain one's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, faults=FAULTS, **options)


__all__ = ["FAULTS", "Fault", "Standin"]
