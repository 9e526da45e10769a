"""Image Size dims the rows that the chosen size does not use, and keeps all their values."""

import pytest
from frontends import SEVERAL
from shots import ARTIFACTS

PAGES = [("classic", "pinned"), *(("nodes2", frontend) for frontend in SEVERAL)]
UNUSED = {
    "square_hd": {"width", "height", "megapixels"},
    "custom": {"megapixels"},
    "match image": {"width", "height"},
}
# Chosen as by hand: both renderers call the widget's callback.
CHOOSE = """(choice) => {
    const widget = app.graph._nodes[0].widgets.find(widget => widget.name === 'image_size')
    widget.value = choice
    widget.callback(choice, app.canvas, app.graph._nodes[0])
}"""
DIMMED = """() => app.graph._nodes[0].widgets
    .filter(widget => widget.disabled).map(widget => widget.name)"""


@pytest.mark.parametrize(("renderer", "frontend"), PAGES)
def test_rows_that_do_nothing_are_dimmed(pages, renderer, frontend):
    page = pages.get(renderer, frontend)
    inputs = {"image_size": "square_hd", "width": 640, "height": 480, "megapixels": 0.5}
    page.load_api({"1": {"class_type": "Flux2EditImageSize", "inputs": inputs}})
    values = page.serialize()["nodes"][0]["widgets_values"]
    for choice, unused in UNUSED.items():
        page.js(CHOOSE, choice)
        page.settle()
        assert set(page.js(DIMMED)) == unused, choice
        saved = page.serialize()
        assert saved["nodes"][0]["widgets_values"] == [choice, *values[1:]]
        exported = page.export_api()["1"]["inputs"]
        assert exported["width"] == 640 and exported["megapixels"] == 0.5
        page.fit(1.0)
        name = f"size-{renderer}-{frontend}-{choice.replace(' ', '-')}.png"
        page.screenshot(ARTIFACTS / name, [1])
        page.load(saved)
        assert set(page.js(DIMMED)) == unused, f"{choice}, opened again"
    assert not page.errors


def test_a_new_node_is_dimmed_and_one_with_a_linked_size_is_not(classic):
    """No hand has chosen at a new one; over a link any size may come."""
    page = classic
    page.js("() => app.graph.add(LiteGraph.createNode('Flux2EditImageSize'))")
    unused = UNUSED["square_hd"]
    assert set(page.js(DIMMED)) == unused
    link = """(linked) => {
        const size = app.graph._nodes[0]
        const at = size.inputs.findIndex(input => input.widget?.name === 'image_size')
        if (!linked) return size.disconnectInput(at)
        const giver = LiteGraph.createNode('PrimitiveNode')
        app.graph.add(giver)
        giver.connect(0, size, at)
    }"""
    page.js(link, True)
    assert not page.js(DIMMED)
    page.js(link, False)
    assert set(page.js(DIMMED)) == unused
