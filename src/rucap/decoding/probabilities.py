"""Numbers about logits, [rows, vocabulary]; nothing of sequences."""

from __future__ import annotations

import numpy as np

from rucap.engines.protocol import Floats, Integers

_BLOCK = 64


def log_softmax(logits: Floats) -> Floats:
    """Natural logarithms of the probabilities, in a new float32 array."""
    shifted: Floats = np.subtract(logits, logits.max(axis=1, keepdims=True), dtype=np.float32)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def top(values: Floats, count: int) -> tuple[Floats, Integers]:
    """The `count` greatest values of each row, greatest first, and where they stand: two of [rows, count]."""
    rows, width = values.shape
    places = np.broadcast_to(np.arange(width), values.shape)
    whole = width // _BLOCK
    if whole > count:
        # The greatest `count` stand in the `count` blocks of the greatest maxima, or in the rest after the last block.
        # Partitioning whole rows takes twice as long, and a hundred times where constraints made half of them equal.
        maxima = np.maximum.reduceat(values[:, : whole * _BLOCK], np.arange(whole) * _BLOCK, axis=1)
        blocks = np.argpartition(maxima, whole - count, axis=1)[:, whole - count :]
        inside = (blocks[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(rows, -1)
        places = np.concatenate([inside, places[:, whole * _BLOCK :]], axis=1)
    found = np.take_along_axis(values, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(places, order, axis=1)


def nucleus(log_probabilities: Floats, temperature: float, top_k: int, top_p: float) -> Floats:
    """Weights [vocabulary] to draw one token by, from one row: 0 outside the `top_k` and the `top_p` likeliest.

    The fewest likeliest tokens whose shares reach `top_p` are kept (Holtzman et al., 2020, section 3.1), the shares
    being those after temperature and `top_k`, as in transformers. Not normalised.
    """
    scaled = log_probabilities / np.float32(temperature)
    weights: Floats = np.exp(scaled - scaled.max())
    if 0 < top_k < len(weights):
        weights[weights < np.partition(weights, -top_k)[-top_k]] = 0
    if top_p < 1:
        descending = np.sort(weights)[::-1]
        shares = np.cumsum(descending, dtype=np.float64)
        last = np.searchsorted(shares, top_p * shares[-1])
        weights[weights < descending[last]] = 0
    return weights


def draw(weights: Floats, generator: np.random.Generator) -> int:
    """One index, with a probability in proportion to its weight. Takes one number from the generator."""
    possible = np.flatnonzero(weights)
    sums = np.cumsum(weights[possible], dtype=np.float64)
    place = np.searchsorted(sums, generator.random() * sums[-1], side="right")
    return int(possible[min(int(place), len(possible) - 1)])
