"""What is refused before anything is sent, and that what is sent is complete and valid."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flux2_lora_edit.flux2.image_size import PRESETS
from flux2_lora_edit.network.address import PUBLIC_ONLY
from flux2_lora_edit.remote.api.models import EDIT, MAX_SEED, TEXT_TO_IMAGE, HostedModel, problems
from flux2_lora_edit.remote.errors import InvalidInput
from flux2_lora_edit.remote.plan import (
    RemoteLora,
    Settings,
    build,
    image_addresses,
    make_plan,
    may_take_addresses_only,
    nearest_size,
)

HERE = Path(__file__).resolve().parent
PAGES = {"text_to_image": TEXT_TO_IMAGE, "edit": EDIT}
ORIGINALS = HERE.parents[2] / "shared" / "spec"  # the whole pages, where a checkout has them

URL = "https://example.com/a.png"
LORA = RemoteLora("owner/repo", 1.0, "LoRA slot 1")
GOOD = Settings("a cat", "square_hd", 2.5, 28, "png", loras=[LORA])


def page_schema(name: str) -> dict:
    """The page's own schema, read as it can only be meant: its ``float`` is JSON's number, its
    ``items`` of ``path`` and ``scale`` are those properties, its null default allows null."""
    schema = json.loads((HERE / "data" / f"{name}.page.json").read_text(encoding="utf-8"))
    properties = schema["properties"]
    properties["loras"]["items"] = {"type": "object", "properties": properties["loras"]["items"]}
    if properties["seed"]["default"] is None:
        properties["seed"]["type"] = ["integer", "null"]
    return schema


def validator(schema: dict) -> jsonschema.Validator:
    base = jsonschema.Draft202012Validator
    checker = base.TYPE_CHECKER.redefine(
        "float", lambda c, v: base.TYPE_CHECKER.is_type(v, "number")
    )
    return jsonschema.validators.extend(base, type_checker=checker)(schema)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_text_is_the_published_one(name: str) -> None:
    ours = (HERE / "data" / f"{name}.page.json").read_text(encoding="utf-8").strip()
    pages = sorted(ORIGINALS.glob("*.txt")) if ORIGINALS.is_dir() else []
    if not pages:
        pytest.skip("the pages themselves are not beside this checkout")
    assert any(ours in page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize("name", PAGES)
def test_the_shipped_schema_says_what_the_page_says(name: str) -> None:
    """Every limit of the page stands in the shipped schema."""
    page, ours = page_schema(name), PAGES[name].document
    assert set(page["properties"]) == set(ours["properties"])
    assert page["required"] == ours["required"]
    for key, given_ in page["properties"].items():
        for word in ("minimum", "maximum", "enum", "default", "maxItems", "minItems"):
            assert given_.get(word) == ours["properties"][key].get(word), (key, word)
    scale = page["properties"]["loras"]["items"]["properties"]["scale"]
    mine = ours["properties"]["loras"]["items"]["properties"]["scale"]
    assert (scale["minimum"], scale["maximum"]) == (mine["minimum"], mine["maximum"]) == (0, 4)


STRICT = {name: validator(model.document) for name, model in PAGES.items()}
VERBATIM = {name: validator(page_schema(name)) for name in PAGES}

loras = st.lists(
    st.builds(
        RemoteLora,
        st.sampled_from(["owner/repo", "https://example.com/l.safetensors"]),
        st.floats(0, 4),
        st.just("LoRA slot 1"),
    ),
    max_size=3,
)
producible = st.builds(
    Settings,
    st.text(min_size=1).filter(str.strip),
    st.sampled_from(sorted(PRESETS)),
    st.floats(0, 20),
    st.integers(4, 50),
    st.sampled_from(["png", "jpeg", "webp"]),
    loras=loras,
)
addresses = st.lists(st.sampled_from([URL, "data:image/png;base64,AAAA"]), max_size=3)


@hypothesis_settings(max_examples=200, deadline=None)
@given(producible, addresses, st.integers(0, MAX_SEED))
def test_every_producible_payload_is_valid_by_both_schemas(
    chosen: Settings, images: list[str], seed: int
) -> None:
    name = "edit" if images else "text_to_image"
    payload = json.loads(json.dumps(build(PAGES[name], chosen, images, seed)))
    STRICT[name].validate(payload)
    VERBATIM[name].validate(payload)
    assert payload.keys() == PAGES[name].document["properties"].keys(), "every key is always sent"


junk = st.one_of(
    # 1.0 is left out: JSON Schema takes it for an integer, we are stricter.
    st.floats(-30, 30).filter(lambda number: not number.is_integer()),
    st.none(), st.booleans(), st.integers(-60, 60), st.text(max_size=3),
    st.just([]), st.just({}), st.sampled_from(sorted(PRESETS)), st.just([URL] * 4),
    st.just([{"path": "a/b", "scale": 4.1}]), st.just([{"scale": 1}]), st.just(["a/b"]),
    st.just([{"path": "a/b", "weight": 1}]), st.just(["ftp://x"]),
)  # fmt: skip


@hypothesis_settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(PAGES)),
    st.dictionaries(st.sampled_from([*EDIT.document["properties"], "extra"]), junk, max_size=2),
    st.sets(st.sampled_from(sorted(EDIT.document["properties"])), max_size=1),
)
def test_our_check_agrees_with_a_real_json_schema_library(
    name: str, changes: dict, missing: set
) -> None:
    model: HostedModel = PAGES[name]
    payload = {**build(model, GOOD, [URL] if name == "edit" else [], 1), **changes}
    payload = {key: value for key, value in payload.items() if key not in missing}
    assert (not list(problems(payload, model.document))) == STRICT[name].is_valid(payload)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", True), ("guidance_scale", True), ("guidance_scale", float("nan")), ("seed", 1.0),
     ("loras", [{"path": "a/b", "scale": True}]), ("prompt", None), ("image_urls", "https://a")],
)  # fmt: skip
def test_one_wrong_kind_alone_is_found(key: str, value: object) -> None:
    assert len(list(problems({**build(EDIT, GOOD, [URL], 1), key: value}, EDIT.document))) == 1


def test_a_schema_word_that_is_not_checked_is_refused() -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        list(problems({}, {"x-model-id": "m", "type": "object", "multipleOf": 2}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loras": [LORA] * 4}, "4 enabled LoRAs; 3 is the most"),
        ({"loras": [LORA._replace(scale=4.1)]}, "LoRA slot 1: its strength is 4.1"),
        ({"loras": [LORA._replace(scale=-0.1)]}, "RunComfy takes 0 to 4"),
        ({"loras": [LORA._replace(scale=float("nan"))]}, "its strength is nan"),
        ({"loras": [LORA._replace(path=" ")]}, "LoRA slot 1 has no address"),
        ({"num_inference_steps": 3}, "is 3; the least is 4"),
        ({"num_inference_steps": 51}, "is 51; the most is 50"),
        ({"guidance_scale": 20.5}, "is 20.5; the most is 20"),
        ({"guidance_scale": float("inf")}, "must be number"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"images": []}, "no picture to edit"),
        ({"images": [URL] * 4}, "image_urls has 4 entries"),
        ({"images": ["ftp://x/y"]}, "image_urls[0] is not an address"),
        ({"image_size": "huge"}, "must be one of square_hd"),
        ({"output_format": "gif"}, "must be one of jpeg, png, webp"),
    ],
)
def test_refused_here(changes: dict, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        images = changes.pop("images", [URL])
        build(EDIT, replace(GOOD, **changes), images, 1)
    assert words in str(caught.value)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_outside_the_range_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match="seed is"):
        build(EDIT, GOOD, [URL], seed)


def test_text_to_image_takes_no_picture() -> None:
    with pytest.raises(InvalidInput, match="takes no picture"):
        build(TEXT_TO_IMAGE, GOOD, [URL], 1)


def test_no_lora_is_an_empty_list_never_an_absent_key() -> None:
    assert build(EDIT, replace(GOOD, loras=()), [URL], 1)["loras"] == []


def test_seeds() -> None:
    chosen = replace(GOOD, seed=MAX_SEED - 1, batch_count=4, image_urls=URL)
    payloads = make_plan(chosen, PUBLIC_ONLY, lambda: False, {}).payloads
    assert [payload["seed"] for payload in payloads] == [MAX_SEED - 1, MAX_SEED, 0, 1]
    chance = replace(GOOD, seed=-1)
    drawn = {
        make_plan(chance, PUBLIC_ONLY, lambda: None, {}).payloads[0]["seed"] for _ in range(64)
    }
    assert len(drawn) > 60 and all(0 <= seed <= MAX_SEED for seed in drawn)


@pytest.mark.parametrize(
    ("size", "preset"),
    [
        ((1024, 1024), "square_hd"),
        ((400, 400), "square_hd"),
        ((512, 512), "square_hd"),
        ((1920, 1080), "landscape_16_9"),
        ((1080, 1920), "portrait_16_9"),
        ((800, 600), "landscape_4_3"),
        ((600, 800), "portrait_4_3"),
        ((3000, 1000), "landscape_16_9"),
        ((1, 4000), "portrait_16_9"),
        ((1100, 1000), "square_hd"),
        ((1200, 1000), "landscape_4_3"),
    ],
)
def test_nearest_size(size: tuple[int, int], preset: str) -> None:
    assert nearest_size(*size) == preset


def test_addresses_are_taken_line_by_line() -> None:
    assert image_addresses(f"\n {URL} \n\nhttps://b.example/x?y=1\n") == [
        URL,
        "https://b.example/x?y=1",
    ]


@pytest.mark.parametrize(
    "line",
    ["http://a/b.png", "C:\\cat.png", "/home/me/cat.png", "https://", "https://u:p@a/b", "a b",
     "https://a/b c", "https://[::1", "data:image/png;base64,AAAA"],
)  # fmt: skip
def test_what_is_no_https_address_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(InvalidInput, match="Line 2 of image_urls"):
        image_addresses(f"{URL}\n{line}")


def test_the_hint_for_data_uris_is_for_data_uris_only() -> None:
    assert may_take_addresses_only({"image_urls": [URL]}) == ""
    assert may_take_addresses_only({}) == ""
    assert "https addresses only" in may_take_addresses_only({"image_urls": ["data:image/png,x"]})
