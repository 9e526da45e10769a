"""A process that fetches the demo's files, to be killed. Started by test_real.py.

Arguments: authority (PEM), hub's origin, CDN's origin, folder, the files as JSON.
"""

import json
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from host.demo import fetching  # noqa: E402  (found through the path set above)
from host.demo.offer import HubFile  # noqa: E402
from host.demo.pack import room  # noqa: E402


def main() -> None:
    authority, hub, cdn, root, files = sys.argv[1:]
    context = ssl.create_default_context(cafile=authority)
    access = room("lora_loader.sources").Access(
        env={"HF_ENDPOINT": hub},
        policy=room("network.address").PUBLIC_ONLY.allowing(hub, cdn),
        client=room("network.client").HttpClient(
            transport=room("network.connection").Transport(tls=lambda: context)
        ),
        login=lambda: None,
    )
    fetching.fetch([HubFile(**file) for file in json.loads(files)], Path(root), access)


main()
