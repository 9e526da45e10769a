"""A stand-in for RunComfy's Model API on this machine: free, with every fault on demand.

It speaks the API of ``blackforestlabs/flux-2/lora`` and ``blackforestlabs/flux-2/lora/edit`` from
the published schemas: validation, a queue with positions, cost, cancel, accounts by token, the
catalogue's price, and pictures of the requested size drawn from the seed. ``./scripts/standin``
starts it; the tests and ``./scripts/demo`` use :class:`Standin` directly.
"""

from .faults import FAULTS, Fault
from .server import Standin
from .state import Account, Job, Timing

__all__ = ["FAULTS", "Account", "Fault", "Job", "Standin", "Timing"]
