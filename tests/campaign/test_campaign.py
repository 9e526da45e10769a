"""The money rule in its short form: some kills, and a fault at each step, in real hosts.

The long one is a command: ``python tests/campaign/kill.py --kills 200``, and ``inject.py``.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from inject import InjectCampaign, short_cases
from kill import KillCampaign

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks whole hosts"),
    pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="COMFYUI_PATH names no ComfyUI"),
]
SEED = int(os.environ.get("FLUX2_CAMPAIGN_SEED", "10"))


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillCampaign]:
    with KillCampaign(tmp_path_factory.mktemp("kill"), SEED) as campaign:
        yield campaign


def test_killed_at_random_moments(killing: KillCampaign) -> None:
    number = 0
    while killing.kills < 6:
        killing.round(number)
        number += 1
    assert killing.ledger.violations == [], killing.report()
    assert len(killing.ledger.payments()) == killing.ledger.distinct() >= 6


def test_a_fault_at_each_step(tmp_path: Path) -> None:
    with InjectCampaign(tmp_path) as campaign:
        for number, case in enumerate(short_cases(SEED)):
            campaign.case(number, case)
    assert campaign.ledger.violations == [], campaign.report()
    assert campaign.unstruck == [], "a step that the run does not take any more"
    assert len(campaign.ledger.payments()) == campaign.ledger.distinct()
