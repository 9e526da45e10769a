"""The stand-in itself: its command, and its own check of requests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from remote_support import EDIT_MODEL, MODEL, payload
from standin_faults import FAULTS
from standin_server.validation import faults_of, load_models

COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "standin"
MODELS = load_models()
GOOD = {MODEL: payload(), EDIT_MODEL: payload(images=["https://example.com/a.png"])}

junk = st.one_of(
    st.none(), st.booleans(), st.integers(-60, 60), st.text(max_size=3),
    st.floats(-30, 30).filter(lambda number: not number.is_integer()),
    st.sampled_from([[], {}, "square", ["https://a"] * 4, [{"path": "a", "scale": 4.1}],
                     [{"scale": 1}], [{"path": "a", "x": 1}], ["a"]]),
)  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_documented_command() -> None:
    environ = {**os.environ, "PYTHON": sys.executable}
    listed = subprocess.run(
        [str(COMMAND), "--list"], env=environ, capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == len(FAULTS)
    server = subprocess.Popen(
        [str(COMMAND), "--port", "0", "--queue", "0", "--run", "0", "--fault", "status_500"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [server.stdout.readline().strip() for _ in range(2)]
        variables = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        assert variables.keys() == {"RUNCOMFY_API_BASE", "RUNCOMFY_API_TOKEN"}
        origin = variables["RUNCOMFY_API_BASE"]
        assert origin.startswith("http://127.0.0.1:")
        headers = {"Authorization": f"Bearer {variables['RUNCOMFY_API_TOKEN']}"}
        url = f"{origin}/v1/models/{MODEL}"
        job = requests.post(url, json=payload(), headers=headers, timeout=60).json()
        first, second = (
            requests.get(job["status_url"], headers=headers, timeout=60).status_code
            for _ in range(2)
        )
        assert (first, second) == (500, 200)
    finally:
        server.terminate()
        server.wait(10)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.dictionaries(st.sampled_from([*GOOD[EDIT_MODEL], "extra"]), junk, max_size=3),
    st.sets(st.sampled_from(["prompt", "loras", "image_urls"]), max_size=1),
)
def test_its_check_agrees_with_a_json_schema_library(name: str, changes: dict, gone: set) -> None:
    body = {key: value for key, value in {**GOOD[name], **changes}.items() if key not in gone}
    schema = json.loads(json.dumps(MODELS[name]))
    # The pattern of image_urls is a reading of ours; the API answers by fetching.
    schema["properties"].get("image_urls", {}).get("items", {}).pop("pattern", None)
    valid = jsonschema.Draft202012Validator(schema).is_valid(body)
    assert (not faults_of(body, MODELS[name], ())) == valid


def test_every_fault_says_what_a_careful_client_makes_of_it() -> None:
    ends = {"delivered", "refused", "unknown", "failed", "cancelled", "rejected", "timed_out",
            "media", "stopped"}  # fmt: skip
    for fault in FAULTS.values():
        assert fault.expect in ends and fault.at in (
            "submit", "status", "result", "cancel", "media",
        ), fault.name  # fmt: skip
