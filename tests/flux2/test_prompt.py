"""Trigger words are put before a prompt once: whole words, in any case."""

import pytest

from flux2_lora_edit.flux2.prompt import missing_words


@pytest.mark.parametrize(
    ("prompt", "words", "missing"),
    [
        ("a cat", "ohwx", ["ohwx"]),
        ("a photo of an OHWX man", "ohwx man, Man", []),
        ("a photo of a man, ohwx", "ohwx man", ["ohwx man"]),
        ("a man drinking", "ink, man", ["ink"]),
        ("ink, ink-wash", "ink", []),
        ("", "ink,\n ink , INK\nfilm grain,,", ["ink", "film grain"]),
        ("a (b+c)* d", "(b+c)*, b+", ["b+"]),
        ("一幅水彩画", "水彩", []),
        ("Ein Kölner", "köln", ["köln"]),
        ("a cat", " \n,", []),
    ],
)
def test_what_is_missing(prompt, words, missing):
    assert missing_words(prompt, words) == missing
