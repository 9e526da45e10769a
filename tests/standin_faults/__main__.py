"""The stand-in as a command, with the faults: what ``./scripts/standin`` runs in a checkout."""

from standin_server.__main__ import main

from . import FAULTS

if __name__ == "__main__":
    main(FAULTS)
