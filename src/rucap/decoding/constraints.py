"""Which tokens may not come next.

The functions are pure: histories, [rows, length] of the tokens written so far, in; the places that are forbidden, as
(rows, tokens), out. `Constraints` puts them together for one `GenerationSettings`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rucap.decoding.settings import GenerationSettings
from rucap.engines.protocol import Booleans, Floats, Integers
from rucap.errors import OptionError

Places = tuple[Integers, Integers]


@dataclass(frozen=True)
class Banned:
    """Banned sequences of one length: `heads` [count, length - 1] may not be followed by `lasts` [count]."""

    heads: Integers
    lasts: Integers


def repeated_ngrams(histories: Integers, n: int) -> Places:
    """Tokens that would write an n-gram a second time (Paulus et al., 2017, section 2.5)."""
    if histories.shape[1] < n:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    windows = sliding_window_view(histories, n, axis=1)
    tail = histories[:, None, histories.shape[1] - (n - 1) :]
    rows, places = np.nonzero((windows[:, :, : n - 1] == tail).all(axis=2))
    return rows, windows[rows, places, n - 1]


def banned_sequences(histories: Integers, banned: Banned) -> Places:
    """Tokens that would complete a banned sequence."""
    length = banned.heads.shape[1]
    if histories.shape[1] < length:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    tail = histories[:, None, histories.shape[1] - length :]
    rows, which = np.nonzero((tail == banned.heads).all(axis=2))
    return rows, banned.lasts[which]


def count_words(histories: Integers, word_starts: Booleans) -> Integers:
    """Words begun in each row: [rows]. The first token begins one whether it is marked or not."""
    begun = word_starts[histories]
    begun[:, :1] = True
    words: Integers = begun.sum(axis=1)
    return words


def group_by_length(sequences: tuple[tuple[int, ...], ...]) -> list[Banned]:
    """Sequences of two tokens or more, in the form `banned_sequences` takes."""
    groups: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
    for sequence in sequences:
        if len(sequence) > 1:
            groups[len(sequence)].append(sequence)
    arrays = (np.array(group, np.int64) for group in groups.values())
    return [Banned(array[:, :-1], array[:, -1]) for array in arrays]


class Constraints:
    """The constraints of `settings` for a vocabulary of the given size. Raises OptionError for a token outside it."""

    def __init__(self, settings: GenerationSettings, vocabulary: int) -> None:
        named = {*settings.end_tokens, *settings.suppressed, *settings.begin, *(t for s in settings.banned for t in s)}
        if outside := sorted(token for token in named if not 0 <= token < vocabulary):
            raise OptionError(f"token {outside[0]} is not in the model's vocabulary: give 0 to {vocabulary - 1}")
        if settings.word_starts is not None and settings.word_starts.shape != (vocabulary,):
            raise OptionError(f"word_starts is {settings.word_starts.shape}: give one for each of {vocabulary} tokens")
        self.settings = settings
        self.ends = np.array(sorted(set(settings.end_tokens)), np.int64)
        alone = [sequence[0] for sequence in settings.banned if len(sequence) == 1]
        self.never = np.array(sorted({*settings.suppressed, *alone}), np.int64)
        self.banned = group_by_length(settings.banned)

    def forbid(self, log_probabilities: Floats, histories: Integers) -> None:
        """Writes -inf over the log-probabilities, [rows, vocabulary], of the tokens that may not come next.

        Some token is always left: where all are forbidden, the end tokens are let in again.
        """
        settings, length = self.settings, histories.shape[1]
        if length < len(settings.begin):
            forced = log_probabilities[:, settings.begin[length]].copy()
            log_probabilities[:] = -np.inf
            log_probabilities[:, settings.begin[length]] = forced
            return
        ends = log_probabilities[:, self.ends]
        log_probabilities[:, self.never] = -np.inf
        if settings.no_repeat_ngram:
            log_probabilities[repeated_ngrams(histories, settings.no_repeat_ngram)] = -np.inf
        for banned in self.banned:
            log_probabilities[banned_sequences(histories, banned)] = -np.inf
        if length < settings.min_tokens:
            log_probabilities[:, self.ends] = -np.inf
        if settings.word_starts is not None:
            words = count_words(histories, settings.word_starts)
            log_probabilities[np.ix_(words < settings.min_words, self.ends)] = -np.inf
            if settings.max_words is not None:
                for row in np.flatnonzero(words >= settings.max_words):
                    np.putmask(log_probabilities[row], settings.word_starts, -np.inf)
        nothing_left = np.flatnonzero(log_probabilities.max(axis=1) == -np.inf)
        log_probabilities[np.ix_(nothing_left, self.ends)] = ends[nothing_left]
