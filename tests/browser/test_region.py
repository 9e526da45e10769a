"""A region in the real page: painted in ComfyUI's own mask editor, edited, put back."""

import io

import numpy as np
from browser.hand import Point, open_mask_editor, paint, save_mask, spread
from PIL import Image
from shots import ARTIFACTS

from host.graph import Graph

# One line of the brush, which is about 20 pixels wide.
PATH = (Point(40, 44), Point(52, 44), Point(52, 52), Point(40, 52))
PICTURE, SAVE = 3, 11


def region_graph():
    """Load Image to Save Image, with the toy that does what its prompt says."""
    graph = Graph()
    model = graph.add("UNETLoader", unet_name="flux2-toy-klein.safetensors", weight_dtype="default")
    clip = graph.add("CLIPLoader", clip_name="toy-words.safetensors", type="flux2")
    # The last of its column: Nodes 2.0 gives it its picture's height later.
    image = graph.add("LoadImage", image="small-1.png")
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
    paint(page, editor, PATH)
    page.screenshot(ARTIFACTS / f"mask-editor-{which}.png")
    folder, _, name = save_mask(page, editor, PICTURE).removesuffix(" [input]").rpartition("/")
    before = pixels(client, "small-1.png", kind="input")
    painted = pixels(client, name, folder, "input")
    hole = painted[..., 3] < 255
    assert 0.05 < hole.mean() < 0.2, "the editor's mask is what was painted"
    assert hole[44:53, 40:53].all() and not hole[:24].any() and not hole[:, 72:].any()
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
