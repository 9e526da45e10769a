"""Rows that RunComfy is paid for: each once, whoever dies, and never more than --max-cost."""

from PIL import Image
from standin_faults import Standin
from standin_server import Timing
from trial import check, kill

from host.graph import Graph

TOKEN = "token-of-a-fleet"
PRICE = 0.021


def hosted_graph():
    graph = Graph()
    remote = graph.add(
        "Flux2EditRunComfy", prompt="a heron", mode="auto", image_size="square", seed=1,
        guidance_scale=2.5, num_inference_steps=4, output_format="png", batch_count=1,
        image_1=graph.add("LoadImage", image="astronaut.png"),
    )  # fmt: skip
    graph.add("SaveImage", images=remote, filename_prefix="hosted")
    return graph.prompt


def test_paid_once_and_within_the_limit(fleet_of, tmp_path):
    """A server is killed while its request is under way, then the driver and all below it; the same
    command goes on. A row that cannot be made stops nobody, and costs nothing."""
    fleet = fleet_of(hosted_graph())
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [{"id": f"r{n}", "seed": n, "image": "red.png"} for n in range(6)]
    rows[0]["image"] = "broken.png"
    options = [*fleet.table(rows), "--servers", "2", "--max-cost", str(5.5 * PRICE)]
    with Standin(timing=Timing(0.1, 0.8), picture_side=32) as standin:
        environment = {
            "RUNCOMFY_API_BASE": standin.origin,
            "RUNCOMFY_API_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "1",
        }
        account = standin.state.account(TOKEN)
        fleet.start(*options, environment=environment)
        fleet.until(lambda: account.submissions >= 1, "first submission")
        kill(fleet.servers()[0])
        fleet.until(lambda: account.submissions >= 3, "third submission")
        fleet.kill_driver()
        ended = fleet.run(*options, environment=environment)
    assert ended.status == 3, ended.told
    # The broken one counts as if it were paid: nobody knows what a server did that failed. On a
    # slow machine it may be the one that the limit leaves.
    assert ended.summary["done"] == account.submissions, ended.told
    assert ended.summary["done"] + ended.summary["failed"] == 5, ended.told
    assert ended.summary["left"] == 1, ended.told
    assert ended.summary["cost_usd"] == round(5 * PRICE, 6)
    check(fleet, {line["id"] for line in fleet.journal() if line["state"] == "done"})
    failed = [line for line in fleet.journal() if line["state"] == "failed"]
    assert all(line["id"] == "r0" and "LoadImage" in line["error"] for line in failed)
