"""How likely a model finds given continuations of a prompt, token by token. Knows engines and tokens, not text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rucap.engines.protocol import Booleans, Engine, Floats, Integers

Values = npt.NDArray[np.float64]

ROWS = 64
"""Continuations read at once: keeps the caches and logits of a thousand labels within some tens of megabytes."""


def log_likelihoods(
    engine: Engine, prefix: Floats, tokens: Integers, mask: Booleans, continuations: Sequence[Sequence[int]]
) -> list[list[Values]]:
    """For each photo and each continuation the natural log-probabilities of its tokens, [its length].

    `prefix` [batch, prefix_length, width], `tokens` and `mask` [batch, length] are prompts as in `Engine.start`. A
    prompt is read once for all of its continuations, none of which may be empty.
    """
    logits, state = engine.start(prefix, tokens, mask)
    found: list[list[Values]] = [[np.empty(0)] * len(continuations) for _ in range(len(prefix))]
    by_length = sorted(range(len(continuations)), key=lambda index: len(continuations[index]))
    pairs = [(photo, index) for index in by_length for photo in range(len(prefix))]
    for start in range(0, len(pairs), ROWS):
        chunk = pairs[start : start + ROWS]
        rows = np.array([photo for photo, _ in chunk], dtype=np.int64)
        texts = [continuations[index] for _, index in chunk]
        values = _read(engine, logits[rows], engine.select(state, rows), texts)
        for (photo, index), text, row in zip(chunk, texts, values, strict=True):
            found[photo][index] = row[: len(text)]
    return found


def _read(engine: Engine, logits: Floats, state: object, texts: Sequence[Sequence[int]]) -> Values:
    """[texts, longest]: log-probabilities; what follows a text's end means nothing."""
    longest = max(map(len, texts))
    tokens = np.array([[*text, *[0] * (longest - len(text))] for text in texts], dtype=np.int64)
    values = np.empty(tokens.shape, dtype=np.float64)
    rows = np.arange(len(texts))
    for place in range(longest):
        if place:
            logits, state = engine.step(tokens[:, place - 1], state)
        peak = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64))
        values[:, place] = logits[rows, tokens[:, place]] - peak[:, 0] - total
    return values
