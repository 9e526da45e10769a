"""A stand-in for RunComfy's Model API on this machine: free, and as faulty as it is told to be.

It speaks the API of ``blackforestlabs/flux-2/lora`` and ``blackforestlabs/flux-2/lora/edit`` from
the published schemas: validation, a queue with positions, cost, cancel, accounts by token, the
catalogue's price, and pictures of the requested size drawn from the seed. ``./scripts/standin``
starts it; the tests and ``./scripts/demo`` use :class:`Standin` directly. Faults come from outside:
the tests' are in ``tests/standin_faults``.
"""

from .exchange import Fault
from .server import Standin
from .state import Account, Job, Timing

__all__ = ["Account", "Fault", "Job", "Standin", "Timing"]
