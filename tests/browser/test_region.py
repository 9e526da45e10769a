"""A region in the real page: painted in ComfyUI's own mask editor, edited, put back."""

import io

import numpy as np
from browser.hand import Point, open_mask_editor, paint, save_mask, spread
from PIL import Image
from shots import ARTIFACTS

from host.graph import Graph

# Over an eye of the cat and beside it: lines of the brush that lie close enough to make an area.
STROKES = [(Point(120, y), Point(220, y)) for y in range(150, 240, 8)]
PICTURE, SAVE = 3, 11


def region_graph():
    """Load Image to Save Image, with the toy that does what its prompt says."""
    graph = Graph()
    model = graph.add("UNETLoader", unet_name="flux2-toy-klein.safetensors", weight_dtype="default")
    clip = graph.add("CLIPLoader", clip_name="toy-words.safetensors", type="flux2")
    # The last of its column: Nodes 2.0 gives it its picture's height later.
    image = graph.add("LoadImage", image="cat.png")
    vae = graph.add("VAELoader", vae_name="taef2")
    region = graph.add(
        "Flux2EditRegionCrop", image=image, mask=image.out(1), max_upscale=1, feather=0
    )
    text = graph.add(
        "Flux2EditConditioning", clip=clip, vae=vae, prompt="image 1 at night",
        image_1=region.out(1),
    )  # fmt: skip
    size = graph.add("Flux2EditImageSize", image_size="match image", image=region.out(1))
    sampler = graph.add(
        "Flux2EditSampler", model=model, positive=text, latent_image=size, seed=1, steps=4,
        guidance=1.0,
    )  # fmt: skip
    edited = graph.add("VAEDecode", samples=sampler, vae=vae)
    pasted = graph.add("Flux2EditRegionPaste", region=region, image=edited)
    graph.add("SaveImage", images=pasted, filename_prefix="region")
    return graph.prompt


def pixels(client, name, subfolder="", kind="output"):
    found = client.view({"filename": name, "subfolder": subfolder, "type": kind})
    return np.asarray(Image.open(io.BytesIO(found))).astype(int)


def test_what_is_painted_changes_and_nothing_else(page, client, request):
    which = request.node.callspec.id
    page.load_api(region_graph())
    spread(page)
    editor = open_mask_editor(page, PICTURE)
    paint(page, editor, STROKES)
    page.screenshot(ARTIFACTS / f"mask-editor-{which}.png")
    folder, _, name = save_mask(page, editor, PICTURE).removesuffix(" [input]").rpartition("/")
    before = pixels(client, "cat.png", kind="input")
    painted = pixels(client, name, folder, "input")
    hole = painted[..., 3] < 255
    assert 0.02 < hole.mean() < 0.1, "the editor's mask is what was painted"
    assert np.array_equal(painted[..., :3], before), "the editor keeps what lies under the paint"
    assert page.queue() == "success"
    (saved,) = page.js("(id) => app.nodeOutputs[id].images", SAVE)
    after = pixels(client, saved["filename"], saved["subfolder"])
    spread(page)
    page.screenshot(ARTIFACTS / f"region-{which}.png")
    assert np.array_equal(after[~hole], before[~hole])
    inside = painted[..., 3] < 64
    red, _, blue = (after - before)[inside].mean(axis=0)
    assert red < -30 < 0 < blue, f"night is dark and blue, not {red:.0f} red and {blue:.0f} blue"
