"""When a sequence is over, and what is made of it."""

from __future__ import annotations

import numpy as np

from rucap.decoding.hypothesis import Hypothesis
from rucap.decoding.settings import GenerationSettings
from rucap.engines.protocol import Booleans, Floats, Integers


def are_finished(histories: Integers, settings: GenerationSettings) -> Booleans:
    """[rows]: True where the last token of histories, [rows, length], is an end token or the stop rule holds."""
    last = histories[:, -1]
    finished: Booleans = (last[:, None] == np.array(settings.end_tokens)).any(axis=1)
    if settings.stops is not None:
        for row in np.flatnonzero(~finished):
            finished[row] = settings.stops(histories[row].tolist())
    return finished


def close(history: Integers, log_probabilities: Floats, finished: bool, settings: GenerationSettings) -> Hypothesis:
    """The hypothesis of one sequence, [length], whose last token may be an end token."""
    tokens = history.tolist()
    if tokens[-1] in settings.end_tokens:
        tokens.pop()
    each = log_probabilities.tolist()
    return Hypothesis(tuple(tokens), sum(each), tuple(each), bool(finished))
