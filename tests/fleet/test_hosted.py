"""Rows that RunComfy is paid for: each once, whoever dies, and never more than --max-cost."""

from standin_faults import Standin
from standin_server import Timing
from trial import check

from host.graph import Graph

TOKEN = "token-of-a-fleet"


def hosted_graph():
    graph = Graph()
    remote = graph.add(
        "Flux2EditRunComfy", prompt="a heron", mode="auto", image_size="square", seed=1,
        guidance_scale=2.5, num_inference_steps=4, output_format="png", batch_count=1,
    )  # fmt: skip
    graph.add("SaveImage", images=remote, filename_prefix="hosted")
    return graph.prompt


def test_paid_once_and_within_the_limit(fleet_of):
    """The driver and all below it is killed while requests are under way."""
    fleet = fleet_of(hosted_graph())
    options = [*fleet.table({"id": f"r{n}", "seed": n} for n in range(5)), "--servers", "2"]
    with Standin(timing=Timing(0.1, 0.8), picture_side=32) as standin:
        environment = {
            "RUNCOMFY_API_BASE": standin.origin,
            "RUNCOMFY_API_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "1",
        }
        account = standin.state.account(TOKEN)
        fleet.start(*options, "--max-cost", "1", environment=environment)
        fleet.until(lambda: account.submissions >= 2, "second submission")
        fleet.kill_driver()
        price = 0.021
        ended = fleet.run(*options, "--max-cost", str(4.5 * price), environment=environment)
    assert ended.status == 3, ended.told
    assert ended.summary["done"] == account.submissions == 4, ended.told
    assert ended.summary["left"] == 1 and ended.summary["cost_usd"] == round(4 * price, 6)
    check(fleet, {line["id"] for line in fleet.journal() if line["state"] == "done"})
