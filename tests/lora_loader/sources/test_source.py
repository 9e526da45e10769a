"""What a LoRA's repo or link may look like, and what is refused with words."""

import pytest

from flux2_lora_edit.lora_loader.sources import (
    HubSource,
    InstalledSource,
    SourceError,
    UrlSource,
    parse_hub,
    parse_url,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("fal/ink", HubSource("fal/ink")),
        (" fal/ink ", HubSource("fal/ink")),
        ("fal/ink:a.safetensors", HubSource("fal/ink", None, "a.safetensors")),
        ("fal/ink:sub/my lora.safetensors", HubSource("fal/ink", None, "sub/my lora.safetensors")),
        ("fal/ink@v1.0:a.safetensors", HubSource("fal/ink", "v1.0", "a.safetensors")),
        ("fal/ink@refs/pr/3", HubSource("fal/ink", "refs/pr/3")),
        ("https://huggingface.co/fal/ink", HubSource("fal/ink")),
        ("hf.co/fal/ink", HubSource("fal/ink")),
        ("https://hf.co/fal/ink/tree/dev", HubSource("fal/ink", "dev")),
        (
            "https://huggingface.co/fal/ink/blob/main/sub/a%20b.safetensors?download=true",
            HubSource("fal/ink", "main", "sub/a b.safetensors"),
        ),
        (
            "https://huggingface.co/fal/ink/resolve/refs/pr/3/a.safetensors",
            HubSource("fal/ink", "refs/pr/3", "a.safetensors"),
        ),
    ],
)
def test_hub_forms(text, source):
    assert parse_hub(text) == source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (None, "empty"),
        ("ink", "names no Hugging Face repo"),
        ("a/b/c", "names no Hugging Face repo"),
        ("../b", "names no Hugging Face repo"),
        ("a/b..c", "names no Hugging Face repo"),
        ("a/b@", "ends in nothing"),
        ("a/b:", "ends in nothing"),
        ("a/b@../x:a.safetensors", "not a branch"),
        ("a/b:../a.safetensors", "not a path inside a repo"),
        ("a/b:/a.safetensors", "not a path inside a repo"),
        ("a/b:a.bin", "not a .safetensors file"),
        ("a/b:a.safetensors\n", None),
        ("a/b\n/c", "unprintable"),
        ("a\\b", "backslash"),
        ("a" * 3000 + "/b", "characters long"),
        ("http://huggingface.co/a/b", "must start with https"),
        ("https://huggingface.co.evil.com/a/b", "is not Hugging Face"),
        ("https://user:secret@huggingface.co/a/b", "Remove the part before '@'"),
        ("https://huggingface.co/datasets/a/b", "model repo is needed"),
        ("https://huggingface.co/a/b/blob/main/%2e%2e/a.safetensors", "not a path inside"),
        ("https://huggingface.co/a/b/blob/main/a%5cb.safetensors", "not a path inside"),
        ("https://huggingface.co/a/b/discussions", "file's page"),
        ("https://huggingface.co/a", "names no repo"),
    ],
)
def test_hub_refusals(text, words):
    if words is None:
        assert parse_hub(text).file == "a.safetensors"
        return
    with pytest.raises(SourceError, match=words.replace(".", r"\.")):
        parse_hub(text)


def test_a_link_is_described_without_its_signature():
    source = parse_url("https://cdn.example.com/a/ink.safetensors?token=SECRET#part")
    assert source == UrlSource("https://cdn.example.com/a/ink.safetensors?token=SECRET")
    assert source.describe() == "https://cdn.example.com/a/ink.safetensors"


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com/a.safetensors",
        "ftp://example.com/a.safetensors",
        "file:///etc/passwd",
        "//example.com/a.safetensors",
        "example.com/a.safetensors",
        "https://u:p@example.com/a.safetensors",
        "https://token@example.com/a.safetensors",
        "https://",
        "https:///a",
        "https://example.com",
        "https://example.com:0/a",
        "https://example.com:99999/a",
        "https://exam ple.com/a",
        "https://exаmple.com/a",
        "https://[::1/a",
        "https://-x_.com/a",
        "javascript:alert(1)",
        "",
        42,
    ],
)
def test_links_refused(text):
    with pytest.raises(SourceError):
        parse_url(text)


def test_a_refused_link_keeps_the_password_to_itself():
    with pytest.raises(SourceError) as caught:
        parse_url("https://me:hunter2@example.com/a")
    assert "hunter2" not in str(caught.value)


def test_descriptions():
    assert InstalledSource("a/b.safetensors").describe() == "a/b.safetensors"
    assert HubSource("a/b", "v1", "c.safetensors").describe() == "a/b@v1:c.safetensors"
