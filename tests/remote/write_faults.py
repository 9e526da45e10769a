"""Writes FAULTS.md beside this file: ``python tests/remote/write_faults.py``."""

import asyncio
import logging
import runpy
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    sys.path.insert(0, str(HERE.parent))  # what tests/conftest.py itself imports
    runpy.run_path(str(HERE.parent / "conftest.py"))  # the package's name, and scripts/
    sys.path.insert(0, str(HERE))
    from fault_table import as_table, run_all
    from standin_faults import Standin

    logging.disable(logging.CRITICAL)
    with Standin(picture_side=32) as standin, tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(run_all(standin, Path(folder)))
        text = as_table(rows, standin.state.leaks)
    (HERE / "FAULTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
