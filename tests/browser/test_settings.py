"""The settings page by keyboard: the requests of before, what they cost, and fetching one again."""

import time

import pytest
from frontends import NEWEST, SEVERAL
from loopback import until
from paid import hosted, open_settings
from shots import ARTIFACTS
from standin_faults import FAULTS

FRONTENDS = ("pinned", NEWEST)
HISTORY = "#flux2-lora-edit-history"


def tab_to(page, target):
    """As somebody without a mouse gets there."""
    for _ in range(60):
        page.page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("it cannot be reached with the Tab key")


@pytest.mark.parametrize("frontend", SEVERAL)
def test_a_request_of_before_is_fetched_again(frontend, pages, client, token, standin):
    page = pages.get("classic", frontend)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seed = time.monotonic_ns() % 2**31
    words = "put <b>snow</b> on the roof"
    page.load_api(hosted(prompt=words, image_size="landscape_4_3", seed=seed))
    assert page.queue() == "success"

    def newest():
        return client.get("/flux2-lora-edit/history")["requests"][0]

    until(lambda: newest()["state"] == "delivered")
    first = newest()
    paid = standin.state.account(token).submissions

    dialog = open_settings(page)
    history = page.page.locator(HISTORY)
    row = history.get_by_role("listitem").first
    row.get_by_text(first["request_id"]).wait_for()
    told = row.inner_text()
    assert f"text to image · landscape_4_3 · seed {seed}" in told and "$0.021" in told
    assert words in told and "delivered" in told
    assert "newest, $" in history.inner_text()
    field = page.page.get_by_label("RunComfy API token")
    field.focus()
    copy = row.get_by_role("button", name="Copy id")
    tab_to(page, copy)
    page.page.keyboard.press("Enter")
    history.get_by_text("Paste it into resume_request_id").wait_for()
    copied = page.js("() => navigator.clipboard.readText()")
    assert copied == first["request_id"] == page.js("() => getSelection().toString()")
    graph = page.serialize()
    # From the field again: how long the way round is, the requests of other tests decide.
    field.focus()
    tab_to(page, history.get_by_role("list"))
    tab_to(page, row.get_by_role("button", name="Fetch"))
    page.page.keyboard.press("Enter")
    row.get_by_text("Saved in ComfyUI's output folder: RunComfy_").wait_for()
    row.locator("img").wait_for()
    page.page.wait_for_function("img => img.naturalWidth", arg=row.locator("img").element_handle())
    row.scroll_into_view_if_needed()
    page.screenshot(ARTIFACTS / f"settings-history-{frontend}.png")
    field.focus()
    page.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert standin.state.account(token).submissions == paid
    assert newest()["request_id"] == copied and newest()["cost_usd"] == 0.021
    assert page.serialize()["nodes"] == graph["nodes"], "it is not the graph that was run"
    assert not page.errors, page.errors[:3]


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_a_hundred_requests_scroll(frontend, pages):
    """And where the browser keeps the clipboard to itself, the id is there to be copied by hand."""
    page = pages.get("classic", frontend)
    rows = [
        {"key": str(n), "request_id": f"{n:08}-1111-2222-3333-444444444444", "state": "delivered",
         "what": "edit · landscape_16_9 · seed 2147483647 · pictures: 3 · LoRAs: 3",
         "prompt": "a lighthouse in a storm, seen from the sea, oil on canvas, 18",
         "cost_usd": 0.021, "started": 1_780_000_000 - n}
        for n in range(100)
    ]  # fmt: skip
    page.context.route(
        "**/flux2-lora-edit/history",
        lambda route: route.fulfill(json={"requests": rows, "sum_usd": 2.1}),
    )
    page.context.route(
        "**/flux2-lora-edit/token",
        lambda route: route.fulfill(
            json={"set": True, "source": "settings", "hint": "…6789", "stored": True,
                  "shared": True}
        ),
    )  # fmt: skip
    dialog = open_settings(page)
    history = page.page.locator(HISTORY)
    history.get_by_role("listitem").nth(99).wait_for(state="attached")
    assert history.bounding_box()["height"] < 450
    dialog.get_by_text("all its users spend this token").wait_for()
    page.js("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
    listed = history.get_by_role("list")
    listed.focus()
    page.page.keyboard.press("End")
    last = history.get_by_role("listitem").nth(99)
    last.get_by_role("button", name="Copy id").click()
    history.get_by_text("The id is selected").wait_for()
    assert page.js("() => getSelection().toString()") == rows[99]["request_id"]
    history.scroll_into_view_if_needed()
    page.screenshot(ARTIFACTS / f"settings-hundred-{frontend}.png")
    assert listed.evaluate("list => list.scrollWidth <= list.clientWidth + 1"), "cut off"
    page.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.context.unroute("**/flux2-lora-edit/history")
    page.context.unroute("**/flux2-lora-edit/token")
    page.js("() => { delete navigator.clipboard.writeText }")


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_a_lost_answer_is_resolved_by_the_id_that_was_found(
    frontend, pages, client, token, standin
):
    page = pages.get("classic", frontend)
    account = standin.state.account(token)
    prompt = hosted()
    page.load_api(prompt)
    plain, standin.faults = standin.faults, FAULTS
    standin.state.account(token, "submit_500_after")
    try:
        assert page.queue() == "error"
    finally:
        account.fault, standin.faults = "", plain
    paid = account.submissions
    lost = account.jobs[-1].id
    page.reset(vue=False)
    dialog = open_settings(page)
    opened = page.page.locator("#flux2-lora-edit-open-requests")
    field = opened.get_by_label("Its id, if it is there")
    field.fill(lost)
    field.scroll_into_view_if_needed()
    page.screenshot(ARTIFACTS / f"settings-lost-{frontend}.png")
    field.press("Enter")
    opened.get_by_text(lost).wait_for()
    assert not field.count(), "its id is known now"
    page.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.load_api(prompt)
    assert page.queue() == "success"
    assert account.submissions == paid

    def still_open():
        return client.get("/flux2-lora-edit/open-requests")["open_requests"]

    until(lambda: not still_open())
    assert not still_open()
    assert not page.errors, page.errors[:3]
