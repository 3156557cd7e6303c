"""The one door to decoding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rucap.decoding.beam import search
from rucap.decoding.hypothesis import Hypothesis
from rucap.decoding.sequential import greedy, sampler, write_sequences
from rucap.decoding.settings import GenerationSettings
from rucap.engines.protocol import Booleans, Engine, Floats, Integers


def generate(
    engine: Engine,
    prefix: Floats,
    tokens: Integers,
    mask: Booleans,
    settings: GenerationSettings,
    photos: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Writes after each photo's prefix and prompt (as `Engine.start` takes them); hypotheses come best first.

    `photos` numbers the photos of a batch, [batch], for sampling: what is drawn for a photo depends on the seed, on its
    number and on nothing else in the batch. By default they are counted from 0.
    """
    if len(prefix) == 0:
        return []
    logits, state = engine.start(prefix, tokens, mask)
    if settings.beams > 1:
        return search(engine, logits, state, settings)
    if not settings.sample:
        return [[hypothesis] for hypothesis in write_sequences(engine, logits, state, settings, greedy)]
    count = settings.hypotheses
    rows = np.repeat(np.arange(len(logits)), count)
    choose = sampler(settings, range(len(logits)) if photos is None else photos)
    drawn = write_sequences(engine, logits[rows], engine.select(state, rows), settings, choose)
    groups = (drawn[start : start + count] for start in range(0, len(drawn), count))
    return [sorted(group, key=lambda h: -h.score(settings.length_penalty)) for group in groups]
