"""Makes the pack importable as ``flux2_lora_edit`` without a host.

ComfyUI imports the pack under a name made of its path, so every import inside is relative. Here an
empty package of a fixed name stands in for it: the rooms below it import as they do in ComfyUI,
and the root ``__init__`` (which needs ComfyUI) is not executed.
"""

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if "flux2_lora_edit" not in sys.modules:
    package = types.ModuleType("flux2_lora_edit")
    package.__path__ = [str(ROOT)]
    sys.modules["flux2_lora_edit"] = package

sys.path.insert(0, str(ROOT / "scripts"))
