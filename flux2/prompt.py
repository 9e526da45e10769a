"""A prompt with the words that LoRAs were trained with."""

import re

_LETTER = r"[^\W\u2e80-\U0003ffff]"
"""Of scripts that put spaces between words; in the others a word may stand anywhere."""


def missing_words(prompt: str, trigger_words: str) -> list[str]:
    """Those of ``trigger_words``, divided by commas or lines, that ``prompt`` does not hold.

    In any case of letters, and as whole words: "ink" is not in "drinking".
    """
    missing: dict[str, str] = {}
    for word in filter(None, map(str.strip, re.split("[,\n]", trigger_words))):
        whole = rf"(?<!{_LETTER}){re.escape(word)}(?!{_LETTER})"
        if not re.search(whole, prompt, re.IGNORECASE):
            missing.setdefault(word.casefold(), word)
    return list(missing.values())
