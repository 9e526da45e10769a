"""Whole runs of ``./scripts/fleet``: real servers, real Ray, real kills.

Minutes, so that ``test_hosted.py`` alone is in every run of the suite. The longest form is a
command: ``python tests/fleet/kill.py --rows 300 --kills 20``.
"""

import os
import signal
import tempfile
from pathlib import Path

import pytest
from kill import Campaign
from PIL import Image
from trial import check, kill

from host import stock

pytestmark = pytest.mark.host
SLOW = pytest.mark.skipif(not os.environ.get("FLUX2_SLOW"), reason="minutes; FLUX2_SLOW=1 runs it")


@SLOW
def test_killed_stopped_and_gone_on_with(fleet_of, tmp_path):
    """A server and an actor are killed, Ctrl-C drains, and the same command makes the rest; a row
    that cannot be made stops nobody and is not tried again."""
    graph = stock.edit(images=["astronaut.png"], steps=2).prompt
    fleet = fleet_of(graph)
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [{"id": f"r{n:02}", "noise_seed": n, "image": "red.png"} for n in range(30)]
    rows[1]["image"] = "broken.png"
    options = [*fleet.table(rows), "--servers", "2"]
    fleet.start(*options)
    fleet.until(lambda: fleet.ended() >= 3, "third row")
    kill(fleet.servers()[0])
    fleet.until(lambda: fleet.ended() >= 8, "eighth row")
    kill(fleet.workers()[0])
    fleet.until(lambda: fleet.ended() >= 12, "twelfth row")
    os.killpg(fleet.process.pid, signal.SIGINT)  # as a terminal does
    stopped = fleet.wait()
    assert stopped.status == 3 and stopped.summary["left"] > 0, stopped.told
    assert "the same command goes on" in stopped.told
    before = {line["id"] for line in fleet.journal() if line["state"] != "begun"}
    assert len(before) == 30 - stopped.summary["left"]

    ended = fleet.run(*options)
    assert ended.status == 1, ended.told
    assert ended.summary | {"seconds": 0} == {
        "rows": 30, "done": 29, "failed": 1, "left": 0, "pictures": 29, "seconds": 0,
        "cost_usd": 0, "manifest": str(fleet.out / "manifest.parquet"), "sheets": [],
    }  # fmt: skip
    lines = fleet.journal()
    (failed,) = [line for line in lines if line["state"] == "failed"]
    assert failed["id"] == "r01" and "LoadImage" in failed["error"]
    counts = check(fleet, [row["id"] for row in rows if row["id"] != "r01"])
    # One row a server that was killed, one an actor, and none by the drain.
    assert 30 <= counts["begun"] <= 32, counts
    with Image.open(fleet.out / "r05_1.png") as picture:
        assert '"noise_seed": 5' in picture.info["prompt"], "it is its own workflow"
    assert not list(fleet.base.glob("input/fleet*")), "pictures stay out of the input folder"
    session = lines[-1]["session"]
    assert not list(Path(tempfile.gettempdir()).glob(f"flux2-fleet-{session}*"))


@SLOW
@pytest.mark.timeout(3600)
def test_three_hundred_rows_and_twenty_kills(fleet_of):
    fleet = fleet_of(stock.edit(steps=2).prompt)
    campaign = Campaign(fleet, rows=300, kills=20, seed=16)
    figures = campaign.run()
    assert figures["status"] == 0 and figures["done"] == 300, figures
    assert figures["run again"] <= campaign.lost_at_most(), figures
