"""Runs a script and ends with its parent, however the parent ends (crash and SIGKILL included).

The parent holds the other end of our standard input: end of file means that it is gone.
"""

import os
import runpy
import sys
import threading


def _follow_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_follow_parent, daemon=True).start()
    del sys.argv[0]
    # As if `python main.py` had been called: the script's own folder comes first.
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
