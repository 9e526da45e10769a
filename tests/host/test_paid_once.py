"""What the hosted node paid is never paid again and never lost: lists, lost caches, kills, tokens.

A server of its own, killed and started anew on the same folders; the token comes by the settings
page's route, so that it can be renewed while the server runs.
"""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import until
from standin_faults import Standin
from standin_server import Timing
from test_runcomfy import QUICK, ROOT, emptied, graph, info_of

from host import models
from host import server as servers
from host.client import Client, Prompt
from host.events import Result

pytestmark = pytest.mark.host

TOKEN = "token-of-paid-once-31c7"
HEADERS = {"X-Flux2-Lora-Edit": "1", "Content-Type": "application/json"}
PROBES = Path(__file__).parent / "custom_nodes" / "probes"


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    with Standin(timing=QUICK, picture_side=32) as server:
        yield server


class House:
    """A ComfyUI whose user lives on when it is killed."""

    def __init__(self, comfyui: Path, base: Path, standin: Standin) -> None:
        self.comfyui, self.base, self.origin = comfyui, base, standin.origin
        self.start()

    def start(self) -> None:
        environment = {"RUNCOMFY_API_BASE": self.origin, "HOME": str(self.base)}
        for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "YOUR_API_TOKEN"):
            environment[name] = ""
        self.server = servers.start(self.comfyui, self.base, environment=environment)
        self.page = Client(self.server.url)

    def kill(self) -> None:
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()
        self.server.stop()

    def set_token(self, token: str) -> None:
        url = f"{self.server.url}/flux2-lora-edit/token"
        self.page.http.put(url, json={"token": token}, headers=HEADERS).raise_for_status()

    def run_anew(self, prompt: Prompt, node: str = "1") -> Result:
        """The same pressed again after the host's caches were lost, as by memory pressure."""
        for _ in range(20):
            self.page.http.post(f"{self.server.url}/free", json={"free_memory": True}, timeout=60)
            time.sleep(0.3)  # the idle worker sees it a moment later
            result = self.page.run(prompt).check()
            if node not in result.cached:
                return result
        raise AssertionError("the host still holds the picture")

    def open_ids(self) -> list[str]:
        listed = self.page.get("/flux2-lora-edit/open-requests")["open_requests"]
        return [entry["request_id"] for entry in listed]


@pytest.fixture(scope="module")
def house(
    comfyui: Path, tmp_path_factory: pytest.TempPathFactory, standin: Standin
) -> Iterator[House]:
    base = tmp_path_factory.mktemp("paid-once") / "base"
    for folder in ("custom_nodes", "output", "input", "models/loras"):
        (base / folder).mkdir(parents=True)
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    models.link_nodes(PROBES, base, "probes")
    house = House(comfyui, base, standin)
    house.set_token(TOKEN)
    yield house
    house.server.stop()


@pytest.fixture
def account(standin: Standin):
    account = emptied(standin, TOKEN)
    yield account
    account.fault, account.timing = "", QUICK
    for patched in ("_strike", "_submit", "_catalogue"):
        standin.__dict__.pop(patched, None)


def listed(seed: int, *texts: str, **inputs: object) -> Prompt:
    prompt = graph(seed, prompt=["t", 0], **inputs)
    prompt["t"] = {"class_type": "TestTextList", "inputs": {"text": "\n".join(texts)}}
    return prompt


def aim(standin: Standin, hits: Callable[[dict], bool]) -> None:
    """Let the account's fault strike those jobs alone whose payload is meant."""
    strike = type(standin)._strike

    def aimed(at: str, exchange) -> bool:
        return exchange.job and hits(exchange.job.payload) and strike(standin, at, exchange)

    standin._strike = aimed  # type: ignore[method-assign]


def test_a_list_is_one_run_and_keeps_what_succeeded(house: House, account, standin) -> None:
    account.fault = "result_failed"
    aim(standin, lambda payload: payload["prompt"] == "two")
    result = house.page.run(listed(1, "one", "two", "three", "four")).check()
    assert account.submissions == 4 and len(result.images("1s")) == 3
    info = info_of(result)
    assert [row["status"] for row in info["requests"]] == [
        "succeeded", "failed", "succeeded", "succeeded",
    ]  # fmt: skip
    assert info["cost_usd"] == 0.063 and info["cost_since_start_usd"] >= 0.063
    assert "3 of 4 delivered" in result.texts[-1][1] and "job failed" in result.texts[-1][1]
    assert any(
        text.startswith("4 requests × $0.021 per image = $0.084") for _, text in result.texts
    )
    account.fault = ""
    result = house.run_anew(listed(1, "one", "two", "three", "four"))
    assert account.submissions == 5, "the failed one alone is paid again"
    assert len(result.images("1s")) == 4 and info_of(result)["cost_usd"] == 0.021
    assert "3 already paid" in result.texts[-1][1]


def test_an_unfit_item_is_told_before_any_is_paid(house: House, account) -> None:
    result = house.page.run(listed(2, "one", " ", "three"))
    assert result.status == "error" and account.submissions == 0
    assert result.error.message.startswith("Item 2 of 3: prompt is empty")
    result = house.page.run(listed(2, "one", "two", resume_request_id=","))
    assert "resume_request_id takes" in result.error.message


def test_a_refusal_stops_the_rest_and_what_is_paid_is_delivered(
    house: House, account, standin
) -> None:
    submit = type(standin)._submit

    def refuse_one(handler, account, model: str, data: bytes) -> None:
        account.fault = "submit_400_balance" if b'"p3"' in data else ""
        submit(standin, handler, account, model, data)

    standin._submit = refuse_one  # type: ignore[method-assign]
    result = house.page.run(listed(3, *(f"p{n}" for n in range(9)))).check()
    assert account.submissions == 4 and len(account.jobs) == 3, "p3 is refused, none after it sent"
    assert len(result.images("1s")) == 3
    rows = info_of(result)["requests"]
    assert sum("balance" in (row["error"] or "") for row in rows) == 6


def test_the_same_request_twice_in_one_graph_is_paid_once(house: House, account) -> None:
    account.timing = Timing(0.3, 0.5)
    prompt = graph(4) | graph(4, "2")
    result = house.page.run(prompt).check()
    assert account.submissions == 1 and len(result.images("1s")) == len(result.images("2s")) == 1


def test_a_sibling_that_fails_costs_nothing_twice(house: House, account, standin) -> None:
    account.fault = "result_failed"
    aim(standin, lambda payload: payload["seed"] == 6)
    submit = type(standin)._submit

    def slow_one(handler, account, model: str, data: bytes) -> None:
        account.timing = Timing(0, 4.0 if b'"seed": 5' in data else 0.3)
        submit(standin, handler, account, model, data)

    standin._submit = slow_one  # type: ignore[method-assign]
    prompt = graph(5) | graph(6, "2")
    assert house.page.run(prompt).status == "error" and account.submissions == 2
    account.fault = ""
    result = house.page.run(prompt).check()
    assert account.submissions == 3, "the failed one again, the other not"
    assert len(result.images("1s")) == len(result.images("2s")) == 1


def test_killed_behind_the_node_it_is_fetched_again(house: House, account) -> None:
    """kill -9 after the picture was handed over, before anything saved it."""
    prompt = graph(7)
    prompt["h"] = {"class_type": "TestHold", "inputs": {"image": ["1", 0], "file": "go"}}
    prompt["1s"]["inputs"]["images"] = ["h", 0]
    house.page.queue(prompt)
    until(lambda: account.counts.get("media", 0) > 0)
    until(lambda: bool(house.page.http.get(f"{house.server.url}/queue", timeout=60).json()))
    time.sleep(0.7)
    assert house.open_ids() == [], "its process lives and works on it"
    house.kill()
    house.start()
    lost = account.jobs[0].id
    assert house.open_ids() == [lost]
    (house.base / "input" / "go").write_text("on")
    result = house.page.run(prompt).check()
    assert account.submissions == 1 and len(result.images("1s")) == 1
    assert "· already paid" in result.texts[-1][1]
    until(lambda: house.open_ids() == [])
    assert house.open_ids() == []


def test_a_prompt_that_fails_behind_the_node_loses_nothing(house: House, account) -> None:
    prompt = graph(8)
    prompt["h"] = {"class_type": "TestHold", "inputs": {"image": ["1", 0], "file": "fail"}}
    prompt["1s"]["inputs"]["images"] = ["h", 0]
    (house.base / "input" / "fail").write_text("")
    assert house.page.run(prompt).status == "error"
    assert house.page.run(graph(8)).check().images("1s") and account.submissions == 1
    assert house.run_anew(graph(8)).images("1s") and account.submissions == 1


def test_what_runcomfy_no_longer_has_is_told_and_paid_anew_once(house: House, account) -> None:
    house.page.run(graph(9)).check()
    account.jobs.clear()
    result = house.run_anew(graph(9))
    assert account.submissions == 2 and len(result.images("1s")) == 1
    notices = " ".join(info_of(result)["notices"])
    assert "a new one is submitted and paid" in notices
    house.run_anew(graph(9))
    assert account.submissions == 2, "the new one is known now"


def test_a_renewed_token_pays_nothing_again(house: House, account, standin) -> None:
    account.timing = Timing(0, 0.2)
    house.page.run(graph(10)).check()
    standin.state._accounts["renewed-" + TOKEN] = account
    house.set_token("renewed-" + TOKEN)
    try:
        assert "1" in house.page.run(graph(10)).check().cached
        house.run_anew(graph(10))
        assert account.submissions == 1
        house.set_token("of-another-account-5d1")
        result = house.page.run(graph(10, batch_count=2)).check()
        stranger = standin.state.account("of-another-account-5d1")
        assert stranger.submissions == 2 and len(result.images("1s")) == 2
        assert "another token" in " ".join(info_of(result)["notices"])
    finally:
        house.set_token(TOKEN)
    house.run_anew(graph(10))
    assert account.submissions == 1, "the stranger's no closed nothing"


def test_the_history_outlives_the_process_and_prompts_do_not(house: House, account) -> None:
    house.page.run(graph(16, prompt="a fox in the snow")).check()

    def newest() -> dict:
        return house.page.get("/flux2-lora-edit/history")["requests"][0]

    until(lambda: newest()["state"] == "delivered")
    first = newest()
    assert first["state"] == "delivered"
    assert first["prompt"] == "a fox in the snow" and first["cost_usd"] == 0.021
    assert first["what"].endswith("seed 16") and first["request_id"] == account.jobs[0].id
    for file in house.base.rglob("requests.jsonl"):
        assert b"a fox" not in file.read_bytes()
    house.kill()
    house.start()
    assert newest() == first | {"prompt": ""}
    house.page.run(graph(17, resume_request_id=first["request_id"])).check()
    assert newest()["cost_usd"] == 0.021 and account.submissions == 1


def test_a_picture_that_cannot_be_read_keeps_its_request_open(
    house: House, account, standin: Standin
) -> None:
    """The good one is delivered, and both are there another time, for nothing."""
    good, account.fault = standin._picture, "result_two_pictures"
    pictures = iter([lambda job: b"no picture", good])
    standin._picture = lambda job: next(pictures, good)(job)  # type: ignore[method-assign]
    try:
        result = house.page.run(graph(18)).check()
        assert len(result.images("1s")) == 1
        (lost,) = (job.id for job in account.jobs)
        assert "One of 2 pictures" in result.texts[-1][1] and lost in result.texts[-1][1]
        until(lambda: lost in house.open_ids())
        assert lost in house.open_ids()
        result = house.page.run(graph(19, resume_request_id=lost)).check()
        assert len(result.images("1s")) == 2 and account.submissions == 1
        until(lambda: lost not in house.open_ids())
        assert lost not in house.open_ids()
    finally:
        del standin._picture


def test_max_cost(house: House, account, standin) -> None:
    result = house.page.run(listed(11, "a", "b", batch_count=2, max_cost=0.08))
    assert "4 requests at $0.021 per image come to $0.084" in result.error.message
    assert "max_cost" in result.error.message and account.submissions == 0
    standin._catalogue = lambda model: {"base_price_usd": 0.01, "price_unit": "megapixel"}
    result = house.page.run(graph(12, max_cost=5.0))
    assert "no price per picture" in result.error.message and account.submissions == 0
    house.page.run(graph(12)).check()
    del standin._catalogue
    house.page.run(listed(11, "a", "b", batch_count=2, max_cost=0.084)).check()
    assert account.submissions == 5


def test_a_preview_that_fails_is_not_a_failed_run(house: House, account) -> None:
    temp = house.base / "temp"
    for file in temp.iterdir():
        file.unlink()
    temp.rmdir()
    temp.write_text("a file where a folder should be")
    try:
        result = house.page.run(graph(13)).check()
        assert len(result.images("1s")) == 1 and "preview" in result.texts[-1][1]
    finally:
        temp.unlink()
        temp.mkdir()


def test_an_unknown_outcome_is_not_paid_twice(house: House, account) -> None:
    account.fault = "submit_500_after"
    assert "may have been accepted" in house.page.run(graph(14)).error.message
    account.fault = ""
    again = house.page.run(graph(14))
    assert "submitted on" in again.error.message and account.submissions == 1
    listing = house.page.get("/flux2-lora-edit/open-requests")["open_requests"]
    (entry,) = [entry for entry in listing if entry["state"] == "unknown"]
    by_id = house.page.run(graph(15, resume_request_id=account.jobs[0].id)).check()
    assert len(by_id.images("1s")) == 1, "found among the user's generations"
    url = f"{house.server.url}/flux2-lora-edit/open-requests"
    house.page.http.delete(url, json={"key": entry["key"]}, headers=HEADERS).raise_for_status()
    house.page.run(graph(14)).check()
    assert account.submissions == 2, "dismissed: the user says that it is to be paid"


@pytest.mark.parametrize("is_right", [True, False])
def test_an_id_written_beside_a_lost_request_makes_it_that_one(
    house: House, account, is_right: bool
) -> None:
    """Found by the user at RunComfy: fetched and closed. A wrong id pays and closes nothing."""
    prompt = graph(20 + is_right)
    account.fault = "submit_500_after"
    assert house.page.run(prompt).status == "error"
    account.fault = ""
    assert "beside the open request" in house.page.run(prompt).error.message
    listing = house.page.get("/flux2-lora-edit/open-requests")["open_requests"]
    (entry,) = [entry for entry in listing if not entry["request_id"]]
    assert entry["what"].endswith(f"seed {20 + is_right}") and entry["cost_usd"] is None
    url = f"{house.server.url}/flux2-lora-edit/open-requests"
    found = account.jobs[0].id if is_right else "of-another-one-77"
    named = {"key": entry["key"], "request_id": found}
    house.page.http.put(url, json=named, headers=HEADERS).raise_for_status()
    result = house.page.run(prompt)
    if is_right:
        assert result.check().images("1s")
        until(lambda: found not in house.open_ids())
        assert found not in house.open_ids()
        assert house.run_anew(prompt).images("1s")
    else:
        assert "Its id is of an unclear answer" in result.error.message
        assert found in house.open_ids()
        house.page.http.delete(url, json=named, headers=HEADERS).raise_for_status()
    assert account.submissions == 1
