"""The library of faults: what each does, and what a client that can be trusted makes of it."""

from .faults_media import MEDIA
from .faults_poll import CANCEL, RESULT, STATUS
from .faults_submit import SUBMIT
from .kinds import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (*SUBMIT, *STATUS, *RESULT, *CANCEL, *MEDIA)
}

__all__ = ["FAULTS", "Fault"]
