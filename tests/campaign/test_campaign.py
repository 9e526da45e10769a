"""The money rule in its short form: some kills, and a fault at each step, in real hosts.

The long one is a command: ``python tests/campaign/kill.py --kills 200``, and ``inject.py``.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hosts import Zygote
from inject import InjectCampaign, short_cases
from kill import KillCampaign
from soak import SoakCampaign

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks whole hosts"),
    pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="COMFYUI_PATH names no ComfyUI"),
]
SEED = int(os.environ.get("FLUX2_CAMPAIGN_SEED", "10"))


SLOW = pytest.mark.skipif(not os.environ.get("FLUX2_SLOW"), reason="minutes; FLUX2_SLOW=1 runs it")


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(Path(os.environ["COMFYUI_PATH"]), tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


def test_killed_at_random_moments(zygote: Zygote, tmp_path: Path) -> None:
    with KillCampaign(tmp_path, SEED, zygote) as campaign:
        for number in range(6):
            campaign.round(number)
    assert campaign.ledger.violations == [], campaign.report()
    assert len(campaign.ledger.payments()) == campaign.ledger.distinct() >= 6


def test_a_fault_at_each_step(zygote: Zygote, tmp_path: Path) -> None:
    with InjectCampaign(tmp_path, zygote) as campaign:
        for number, case in enumerate(short_cases(SEED)):
            campaign.case(number, case)
    assert campaign.ledger.violations == [], campaign.report()
    assert campaign.unstruck == [], "a step that the run does not take any more"
    assert len(campaign.ledger.payments()) == campaign.ledger.distinct()


@SLOW
@pytest.mark.timeout(1200)
def test_a_thousand_jobs_with_random_faults(zygote: Zygote, tmp_path: Path) -> None:
    with SoakCampaign(tmp_path, SEED, zygote) as campaign:
        campaign.run(1000)
    kilobytes, threads = campaign.growth()
    assert campaign.ledger.violations == [], campaign.report()
    assert threads <= 0 and kilobytes < 30_000, campaign.report()
