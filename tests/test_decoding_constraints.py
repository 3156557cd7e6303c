"""Constraints against naive loops, and what they make of whole sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rucap.decoding import GenerationSettings, generate
from rucap.decoding.constraints import (
    Constraints,
    banned_sequences,
    count_words,
    group_by_length,
    repeated_ngrams,
)
from rucap.errors import OptionError

VOCABULARY, END = 6, 5
TOKENS = st.integers(0, VOCABULARY - 1)


@st.composite
def histories(draw, longest=12):
    rows, length = draw(st.integers(1, 4)), draw(st.integers(0, longest))
    flat = draw(st.lists(TOKENS, min_size=rows * length, max_size=rows * length))
    return np.array(flat, np.int64).reshape(rows, length)


def pairs(places):
    rows, tokens = places
    return set(zip(rows.tolist(), tokens.tolist(), strict=True))


@settings(deadline=None)
@given(histories(), st.integers(1, 5))
def test_repeated_ngrams(written, n):
    expected = set()
    for row, history in enumerate(written.tolist()):
        seen = {tuple(history[i : i + n]) for i in range(len(history) - n + 1)}
        expected |= {(row, t) for t in range(VOCABULARY) if tuple([*history, t][-n:]) in seen}
    assert pairs(repeated_ngrams(written, n)) == expected


@settings(deadline=None)
@given(histories(), st.lists(st.lists(TOKENS, min_size=2, max_size=4).map(tuple), max_size=8))
def test_banned_sequences(written, sequences):
    expected = set()
    for row, history in enumerate(written.tolist()):
        for sequence in sequences:
            expected |= {(row, t) for t in range(VOCABULARY) if tuple([*history, t][-len(sequence) :]) == sequence}
    found = [pairs(banned_sequences(written, banned)) for banned in group_by_length(tuple(sequences))]
    assert set().union(*found) == expected


@settings(deadline=None)
@given(histories(), st.lists(st.booleans(), min_size=VOCABULARY, max_size=VOCABULARY))
def test_count_words(written, starts):
    expected = [sum(starts[t] or i == 0 for i, t in enumerate(history)) for history in written.tolist()]
    assert count_words(written, np.array(starts)).tolist() == expected


@st.composite
def some_settings(draw):
    least = draw(st.integers(0, 4))
    few = st.lists(TOKENS, max_size=3).map(tuple)
    return GenerationSettings(
        end_tokens=(END,),
        max_tokens=13,
        min_tokens=draw(st.integers(0, 5)),
        no_repeat_ngram=draw(st.integers(0, 3)),
        banned=tuple(draw(st.lists(st.lists(TOKENS, min_size=1, max_size=3).map(tuple), max_size=4))),
        suppressed=draw(few),
        begin=tuple(t for t in draw(few) if t != END),
        min_words=least,
        max_words=draw(st.none() | st.integers(max(1, least), 6)),
        word_starts=np.array([True, True, False, True, False, False]),
    )


def allowed(history, token, options):
    """The rules as they are told, one token at a time."""
    after = [*history, token]
    if len(history) < len(options.begin):
        return token == options.begin[len(history)]
    n, words = options.no_repeat_ngram, sum(options.word_starts[t] or i == 0 for i, t in enumerate(history))
    if n and any(history[i : i + n] == after[-n:] for i in range(len(history) - n + 1)):
        return False
    if any(tuple(after[-len(sequence) :]) == sequence for sequence in options.banned):
        return False
    if token == END and (len(history) < options.min_tokens or words < options.min_words):
        return False
    if options.max_words is not None and words >= options.max_words and options.word_starts[token]:
        return False
    return token not in options.suppressed


@settings(deadline=None)
@given(histories(), some_settings())
def test_forbid(written, options):
    before = np.random.default_rng(0).normal(size=(len(written), VOCABULARY)).astype(np.float32)
    after = before.copy()
    Constraints(options, VOCABULARY).forbid(after, written)
    for row, history in enumerate(written.tolist()):
        expected = {t for t in range(VOCABULARY) if allowed(history, t, options)} or {END}
        assert set(np.flatnonzero(after[row] > -np.inf).tolist()) == expected
        assert all(after[row, t] == before[row, t] for t in expected)


class FixedEngine:
    """Says the same logits whatever was written: `logits` [batch, vocabulary]."""

    def __init__(self, logits):
        self.logits = np.asarray(logits, np.float32)
        self.steps = []

    def start(self, prefix, tokens, mask):
        return self.logits, np.arange(len(prefix))

    def step(self, tokens, state):
        assert len(tokens) == len(state)
        self.steps.append(len(tokens))
        return self.logits[state], state

    def select(self, state, rows):
        return state[rows]


def write(logits, **options):
    count = len(logits)
    empty = np.zeros((count, 0), np.int64)
    options = {"end_tokens": (END,), "max_tokens": 12, **options}
    engine = FixedEngine(logits)
    results = generate(engine, np.zeros((count, 1, 4), np.float32), empty, empty > 0, GenerationSettings(**options))
    return results, engine


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


LOGITS = np.array([2.0, 1.0, 0.5, 0.2, 0.1, -3.0])
ENDING = np.array([2.0, 1.0, 0.5, 0.2, 0.1, 8.0])


@pytest.mark.parametrize("mode", [{}, {"beams": 3}, {"sample": True}])
def test_forced_begin(mode):
    results, _ = write([LOGITS], begin=(4, 4, 2), suppressed=(2, 4), no_repeat_ngram=1, **mode)
    tokens = results[0][0].tokens
    assert tokens[:3] == (4, 4, 2)
    assert not {2, 4} & set(tokens[3:])
    assert results[0][0].token_log_probabilities[0] == pytest.approx(log_softmax(LOGITS)[4], abs=1e-5)


@pytest.mark.parametrize("mode", [{}, {"beams": 3, "hypotheses": 3}, {"sample": True, "hypotheses": 5}])
def test_words_are_limited_from_both_sides(mode):
    starts = np.array([True, True, False, True, False, False])
    many, _ = write([LOGITS], word_starts=starts, max_words=3, **mode)
    eager, _ = write([ENDING], word_starts=starts, min_words=4, **mode)
    for hypothesis in many[0]:
        assert count_words(np.array([hypothesis.tokens]), starts)[0] <= 3
    for hypothesis in eager[0]:
        assert count_words(np.array([hypothesis.tokens]), starts)[0] >= 4


def test_a_sequence_ends_where_everything_is_forbidden():
    results, _ = write([LOGITS], no_repeat_ngram=1, suppressed=(0, 1, END))
    assert results[0][0].tokens == (2, 3, 4)
    assert results[0][0].finished
    results, _ = write([LOGITS], no_repeat_ngram=1, suppressed=(0, 1, END), beams=3, hypotheses=3)
    assert all(h.finished and sorted(h.tokens) == [2, 3, 4] for h in results[0])


def test_fewer_hypotheses_where_fewer_can_be_written():
    results, _ = write([LOGITS], beams=4, hypotheses=4, suppressed=(0, 1, 2, 3), max_tokens=3)
    assert {h.tokens for h in results[0]} == {(), (4,), (4, 4), (4, 4, 4)}


def test_log_probabilities_are_the_models_own():
    mask = {"suppressed": (0,), "max_tokens": 2}
    for mode in ({}, {"beams": 2}, {"sample": True, "temperature": 0.01}):
        (hypothesis,) = write([LOGITS], **mask, **mode)[0][0]
        assert hypothesis.tokens == (1, 1)
        assert hypothesis.token_log_probabilities == pytest.approx([log_softmax(LOGITS)[1]] * 2, abs=1e-5)
        assert hypothesis.log_probability == pytest.approx(sum(hypothesis.token_log_probabilities))
        assert not hypothesis.finished


def test_an_end_token_counts_in_the_probability_and_not_in_the_tokens():
    (hypothesis,) = write([ENDING])[0][0]
    assert hypothesis.tokens == ()
    assert hypothesis.token_log_probabilities == pytest.approx([log_softmax(ENDING)[END]], abs=1e-6)
    assert hypothesis.finished


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        ({}, [1, 1, 1, 1]),
        ({"sample": True, "temperature": 0.01}, [1, 1, 1, 1]),
        ({"beams": 3}, [6, 3, 3, 3]),  # a photo leaves with its third finished hypothesis
    ],
)
def test_finished_photos_leave_the_batch(mode, steps):
    results, engine = write([LOGITS, ENDING], max_tokens=5, **mode)
    assert engine.steps == steps
    assert results[1][0].tokens == ()
    assert len(results[0][0].tokens) == 5


@pytest.mark.parametrize("mode", [{}, {"sample": True, "temperature": 0.01}, {"beams": 3}])
def test_a_stop_rule_ends_a_sequence_after_the_token_that_met_it(mode):
    stopping = np.where(np.arange(VOCABULARY) == 1, 30, LOGITS)
    results, engine = write(
        [LOGITS, stopping], max_tokens=6, stops=lambda tokens: tokens[-3:] == [1, 1, 1], suppressed=(END,), **mode
    )
    assert results[1][0].tokens == (1, 1, 1)
    assert results[1][0].finished
    assert not results[0][0].finished
    assert engine.steps[0] == 2 * engine.steps[-1]


def test_all_beams_go_on_where_many_end_tokens_are_likelier():
    logits = np.linspace(0, 5, 20)
    logits[0] = 6
    _, engine = write([logits], beams=3, end_tokens=tuple(range(12, 20)), max_tokens=2)
    assert engine.steps == [3]


def test_an_empty_batch():
    assert write(np.zeros((0, VOCABULARY)))[0] == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"end_tokens": ()}, "end_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"beams": 0}, "beams"),
        ({"hypotheses": 2}, "hypotheses"),
        ({"beams": 2, "hypotheses": 3}, "hypotheses"),
        ({"beams": 2, "sample": True}, "beams"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"min_tokens": 40}, "min_tokens"),
        ({"begin": (1,) * 40}, "begin"),
        ({"begin": (1, END)}, "begin"),
        ({"banned": ((1,), ())}, "banned"),
        ({"min_words": 1}, "word_starts"),
        ({"max_words": 3}, "word_starts"),
        ({"max_words": 0, "word_starts": np.ones(6, bool)}, "max_words"),
        ({"max_words": 2, "min_words": 3, "word_starts": np.ones(6, bool)}, "max_words"),
    ],
)
def test_settings_without_meaning_are_refused(options, named):
    with pytest.raises(OptionError, match=named):
        GenerationSettings(**{"end_tokens": (END,), **options})


@pytest.mark.parametrize(
    "options", [{"end_tokens": (6,)}, {"suppressed": (-1,)}, {"banned": ((1, 6),)}, {"begin": (6,)}]
)
def test_tokens_outside_the_vocabulary_are_refused(options):
    with pytest.raises(OptionError, match="vocabulary"):
        write([LOGITS], **options)


def test_word_starts_of_another_vocabulary_are_refused():
    with pytest.raises(OptionError, match="word_starts"):
        write([LOGITS], word_starts=np.ones(7, bool))
