"""How the original wrote, as settings of our decoding: to compare with it, not to caption with."""

from __future__ import annotations

from rucap.decoding import GenerationSettings
from rucap.model.tokenizer import Tokenizer

ENTRY_LENGTH = 67
"""Tokens that ClipCap's `generate2` writes at most."""


def original_settings(tokenizer: Tokenizer, stop: str = ".") -> GenerationSettings:
    """ClipCap's `generate2`: the likeliest token each time (its top-p filter never drops that one), 67 at most.

    It stops at the first token of the text `stop`, which it keeps; ours is left out of the hypothesis. The Russian
    release's stop word never came: a `stop` of that kind gives all 67 tokens.
    """
    return GenerationSettings(end_tokens=(tokenizer.encode(stop)[0],), max_tokens=ENTRY_LENGTH)
