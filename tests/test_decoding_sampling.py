"""Sampling against the exact distribution of outcomes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from rucap.decoding import GenerationSettings, generate
from rucap.decoding.probabilities import draw, log_softmax, nucleus, top

VOCABULARY, END, DRAWS = 5, 4, 20_000
TABLE = np.random.default_rng(3).normal(scale=0.4, size=(VOCABULARY + 1, VOCABULARY)).astype(np.float32)
"""Logits after each token; the last row is those after the prompt."""


class MarkovEngine:
    """The next token depends on the last one only."""

    def start(self, prefix, tokens, mask):
        return np.repeat(TABLE[-1:], len(prefix), axis=0), np.arange(len(prefix))

    def step(self, tokens, state):
        return TABLE[tokens], state

    def select(self, state, rows):
        return state[rows]


def sample(photos=1, numbers=None, **options):
    empty = np.zeros((photos, 0), np.int64)
    wanted = GenerationSettings(**{"end_tokens": (END,), "max_tokens": 2, "sample": True, **options})
    return generate(MarkovEngine(), np.zeros((photos, 1, 1), np.float32), empty, empty > 0, wanted, numbers)


def kept(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution as it is told: likeliest first, one token at a time."""
    probabilities = np.exp(np.float64(logits) / temperature)
    order = np.argsort(-probabilities)[: top_k or None]
    shares = probabilities[order] / probabilities[order].sum()
    chosen = [i for i in range(len(order)) if shares[:i].sum() < top_p]
    result = np.zeros(len(logits))
    result[order[chosen]] = shares[chosen] / shares[chosen].sum()
    return result


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.7}, {"top_k": 4, "top_p": 0.6}],
)
def test_outcomes_have_their_exact_frequencies(options):
    exact = {}
    for first, second in itertools.product(range(VOCABULARY), repeat=2):
        text = tuple(t for t in (first, second)[: 1 if first == END else 2] if t != END)
        key = (text, END in (first, second))
        share = kept(TABLE[-1], **options)[first]
        if first != END:
            share *= kept(TABLE[first], **options)[second]
        elif second != END:
            continue
        exact[key] = exact.get(key, 0) + share
    counts = dict.fromkeys(exact, 0)
    for hypothesis in sample(hypotheses=DRAWS, **options)[0]:
        counts[hypothesis.tokens, hypothesis.finished] += 1
    assert sum(exact.values()) == pytest.approx(1)
    assert all(counts[key] == 0 for key in exact if exact[key] == 0)
    likely = [key for key in exact if exact[key] * DRAWS > 5]
    assert len(likely) >= 3
    statistic = sum((counts[key] - exact[key] * DRAWS) ** 2 / (exact[key] * DRAWS) for key in likely)
    assert chi2.sf(statistic, len(likely) - 1) > 0.001


@settings(deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=30, unique_by=lambda x: round(x, 3)),
    st.floats(0.2, 3),
    st.integers(0, 31),
    st.floats(0.01, 1),
)
def test_the_tokens_kept_are_those_of_a_naive_loop(logits, temperature, top_k, top_p):
    row = log_softmax(np.array([logits], np.float32))[0]
    weights = nucleus(row, temperature, top_k, top_p)
    expected = kept(logits, temperature, top_k, top_p)
    edges = np.cumsum(np.sort(kept(logits, temperature, top_k))[::-1])
    if np.abs(edges - top_p).min() > 1e-4:  # else rounding decides
        np.testing.assert_allclose(weights / weights.sum(), expected, atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from([0.0, 1e-7, 0.5, 1.0]), min_size=1, max_size=9))
def test_a_token_without_weight_is_never_drawn(seed, weights):
    weights = np.array([*weights, 0.25], np.float32)
    assert weights[draw(weights, np.random.default_rng(seed))] > 0


class AlmostOne(np.random.Generator):
    def random(self):
        return 1 - 2.0**-53


def test_the_greatest_number_draws_the_last_token_with_weight():
    assert draw(np.array([0.3, 0.3, 0.1, 0.0], np.float32), AlmostOne(np.random.PCG64())) == 2


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2000), st.integers(1, 20), st.sampled_from([0.0, 0.5, 0.99]))
def test_top_is_a_sorted_head(seed, width, count, forbidden):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(3, width)).round(2).astype(np.float32)
    table[generator.random(table.shape) < forbidden] = -np.inf
    greatest, places = top(table, count)
    np.testing.assert_array_equal(greatest, np.sort(table, axis=1)[:, ::-1][:, :count])
    np.testing.assert_array_equal(np.take_along_axis(table, places, axis=1), greatest)
    assert all(len(set(row)) == len(row) for row in places.tolist())


def test_log_softmax_of_large_logits():
    rows = np.array([[1e4, 1e4 - 1, -1e4]], np.float32)
    exact = np.array([[0, -1, -2e4]]) - np.log(1 + np.exp(-1))
    np.testing.assert_allclose(log_softmax(rows), exact, rtol=1e-6)
    assert rows[0, 0] == 1e4


def test_a_photos_text_does_not_depend_on_the_rest_of_the_batch():
    together = sample(photos=6, hypotheses=3, max_tokens=8, seed=5)
    apart = [sample(photos=1, numbers=[photo], hypotheses=3, max_tokens=8, seed=5)[0] for photo in range(6)]
    assert together == apart
    assert sample(photos=2, numbers=[4, 1], hypotheses=3, max_tokens=8, seed=5) == [together[4], together[1]]
    assert len({tuple(h.tokens for h in photo) for photo in together}) > 3


def test_more_hypotheses_keep_the_first_ones():
    few = {h.tokens for h in sample(hypotheses=3, max_tokens=8)[0]}
    many = {h.tokens for h in sample(hypotheses=9, max_tokens=8)[0]}
    assert few < many


def test_the_seed_decides():
    texts = [sample(photos=4, max_tokens=8, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_the_best_comes_first(length_penalty):
    drawn = sample(hypotheses=20, max_tokens=8, length_penalty=length_penalty)[0]
    scores = [h.log_probability / len(h.token_log_probabilities) ** length_penalty for h in drawn]
    assert scores == sorted(scores, reverse=True)
