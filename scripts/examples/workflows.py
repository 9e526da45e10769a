"""The example workflows in the order in which ComfyUI's Templates are to show them."""

from host.graph import Graph

from . import recipes, regions, where_when
from .graphs import PICTURE, hosted, local, pictures, stack
from .models import DEV, EDIT_LORA, KLEIN, STYLE_LORA
from .recipes import BEHIND, EDIT, SPRITE, WINTER, of_preset, recipe_box
from .sheets import Example, Sheet

# Room above a column or between its nodes, for links that would run behind what they pass.
LANE, DOWN, APART = 70, 400, 120


def _on_runcomfy(prompt: str, size: str, count: int, lora: str) -> Sheet:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * count)
    loras = stack(graph, ((lora, 1.0),))
    at = hosted(graph, prompt, images=images, loras=loras, size=size)
    return Sheet(graph, ((), (*images.values(), loras), (at["hosted"],), (at["save"],)))


def _side_by_side() -> Sheet:
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph, ((EDIT_LORA, 1.0),))
    same = {"images": images, "loras": loras, "size": "landscape_4_3"}
    here = local(graph, DEV, BEHIND, prefix="side-by-side-local", **same)
    there = hosted(graph, BEHIND, prefix="side-by-side-runcomfy", **same)
    box = of_preset(recipe_box(here, 1, EDIT, 440))
    columns = (
        (),
        (*images.values(), loras),
        (box.title, there["hosted"]),
        (here["save"], APART, there["save"]),
    )
    return Sheet(graph, columns, (box,), fixed=True)


def _under_the_hood() -> Sheet:
    """The only one without a box. Long links run above and below what they pass."""
    graph = Graph()
    images = pictures(graph, PICTURE)
    loras = stack(graph)
    at = local(graph, KLEIN, WINTER, images=images, loras=loras, size="match image")
    columns = (
        (at["model"], loras),
        (at["apply"], at["clip"], *images.values(), at["vae"]),
        (LANE, at["conditioning"], at["size"]),
        (at["sampler"], DOWN, at["decode"]),
        (DOWN, at["save"]),
    )
    return Sheet(graph, columns, note=(400, 580))


PAID = (
    "Runs on RunComfy, which **bills each request**. Set your token in Settings → FLUX.2 LoRA Edit "
    "→ RunComfy. The LoRA must be on Hugging Face or at a link."
)

_EXAMPLES = (
    *recipes.EXAMPLES,
    *where_when.EXAMPLES,
    *regions.EXAMPLES,
    Example(
        "Edit one picture (RunComfy)",
        f"{PAID} The LoRA turns the camera: **\\<sks\\>**, a view, an angle, a distance.",
        lambda: _on_runcomfy(BEHIND, "auto", 1, EDIT_LORA),
        None,
        "**max_cost** among the advanced inputs stops what would cost more. Without a picture the "
        "same node makes one from text.",
    ),
    Example(
        "Text to image (RunComfy)",
        f"{PAID} The prompt is the one of the LoRA's own page.",
        lambda: _on_runcomfy(SPRITE, "landscape_4_3", 0, STYLE_LORA),
        None,
        "another subject between the trigger words. Pictures in **image_1** to **image_3** make "
        "it an edit.",
    ),
    Example(
        "Same edit here and on RunComfy (dev)",
        "One picture, one LoRA stack, one prompt, one seed, which stays: once on this machine and "
        "once there. The two pictures need not match: the same seed is other noise on other "
        f"machines, and precision and size may differ. {PAID}",
        _side_by_side,
        DEV,
        "change the prompt in both; the box and the hosted node take the same inputs, so that "
        "either can stand in the other's place.",
    ),
    Example(
        "Under the hood, every node of an edit (klein)",
        "What is in the box of Edit one picture: ComfyUI's loaders and this pack's nodes, each "
        "with its help behind the **?**.",
        _under_the_hood,
        KLEIN,
        "select what belongs together and make a subgraph of it, as the other templates are.",
    ),
)


def _stem(number: int, name: str) -> str:
    """A pack's template has nothing but its file's name: it is the title, which the page sorts by.

    Old frontends look for the words searched from its beginning, new ones for each as the start of
    a word, whose ends are spaces and hyphens: so that "flux2" finds it, it is a word, too.
    """
    title, _, model = name.removesuffix(")").partition(" (")
    slug = "-".join(model.lower().replace(",", "").split())
    return f"FLUX.2 LoRA {number:02} {title} - flux2-{slug}"


EXAMPLES = {_stem(number, example.name): example for number, example in enumerate(_EXAMPLES, 1)}
