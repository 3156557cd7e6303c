"""Greedy decoding and sampling: each sequence goes its own way, one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from rucap.decoding.constraints import Constraints
from rucap.decoding.endings import are_finished, close
from rucap.decoding.hypothesis import Hypothesis
from rucap.decoding.probabilities import draw, log_softmax, nucleus
from rucap.decoding.settings import GenerationSettings
from rucap.engines.protocol import Engine, Floats, Integers, State

Choose: TypeAlias = Callable[[Floats, Integers], Integers]
"""(log-probabilities of some sequences, [rows, vocabulary], and which sequences they are, [rows]) to tokens, [rows]."""


def greedy(log_probabilities: Floats, sequences: Integers) -> Integers:
    """The likeliest token of each row."""
    likeliest: Integers = log_probabilities.argmax(axis=1)
    return likeliest


def sampler(settings: GenerationSettings, photos: Sequence[int]) -> Choose:
    """Draws tokens for `settings.hypotheses` sequences of each photo.

    Each sequence has a generator of its own, seeded by the photo's number and its own, so that what is drawn for it
    does not depend on what else is in the batch.
    """
    generators = [np.random.default_rng((settings.seed, p, h)) for p in photos for h in range(settings.hypotheses)]

    def choose(log_probabilities: Floats, sequences: Integers) -> Integers:
        kept = (nucleus(row, settings.temperature, settings.top_k, settings.top_p) for row in log_probabilities)
        return np.array([draw(weights, generators[s]) for weights, s in zip(kept, sequences, strict=True)], np.int64)

    return choose


def write_sequences(
    engine: Engine, logits: Floats, state: State, settings: GenerationSettings, choose: Choose
) -> list[Hypothesis]:
    """Writes one sequence for each row of `logits`, [rows, vocabulary], which `engine.start` gave with `state`."""
    constraints = Constraints(settings, logits.shape[1])
    written: dict[int, Hypothesis] = {}
    sequences = np.arange(len(logits))
    histories = np.empty((len(logits), 0), np.int64)
    chosen = np.empty((len(logits), 0), np.float32)
    for length in range(1, settings.max_tokens + 1):
        log_probabilities = log_softmax(logits)
        constraints.forbid(log_probabilities, histories)
        tokens = choose(log_probabilities, sequences)[:, None]
        histories = np.concatenate([histories, tokens], axis=1)
        chosen = np.concatenate([chosen, np.take_along_axis(log_probabilities, tokens, axis=1)], axis=1)
        finished = are_finished(histories, settings)
        for row in np.flatnonzero(finished | (length == settings.max_tokens)):
            written[int(sequences[row])] = close(histories[row], chosen[row], finished[row], settings)
        kept = np.flatnonzero(~finished)
        if len(kept) == 0 or length == settings.max_tokens:
            break
        if len(kept) < len(sequences):
            state = engine.select(state, kept)
            sequences, histories, chosen = sequences[kept], histories[kept], chosen[kept]
        logits, state = engine.step(histories[:, -1], state)
    return [written[sequence] for sequence in sorted(written)]
