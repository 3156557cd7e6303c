"""CIDEr-D (Vedantam, Zitnick, Parikh, arXiv:1411.5726) as pycocoevalcap computes it: a score, and a training reward.

Texts are normalised here (see `normalise`). Only `cider_d` is in the field's units, pycocoevalcap's value times 100
(a person's caption of a photo: about 75 to 115); `CiderReward` gives pycocoevalcap's own 0..10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rucap.errors import DataError
from rucap.evaluation.normalise import normalise

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Ngram = tuple[str, ...]

LONGEST_NGRAM = 4
SIGMA = 6.0
"""Words; width of the Gaussian that punishes a length unlike the reference's."""


def cider_d(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """The mean CIDEr-D times 100, and each photo's, of one hypothesis a photo against its references.

    Document frequencies are those of `references`, so scores depend on the whole set (of one photo: always 0).
    Raises DataError for an empty set, counts that differ or a photo without references.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    _check(references)
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} captions for {len(references)} photos; give one caption a photo")
    scorer = CiderScorer(n=LONGEST_NGRAM, sigma=SIGMA)
    for hypothesis, of_photo in zip(hypotheses, references, strict=True):
        scorer += (normalise(hypothesis), [normalise(reference) for reference in of_photo])
    mean, scores = scorer.compute_score()
    return 100 * float(mean), [100 * float(score) for score in scores]


@dataclass(frozen=True)
class _References:
    """One photo's references over their `m` distinct n-grams."""

    ngrams: Integers
    """[m], ascending."""
    weights: Floats
    """[references, m]: tf-idf."""
    norms: Floats
    """[references, LONGEST_NGRAM]."""
    lengths: Floats
    """[references]."""


class CiderReward:
    """CIDEr-D of many hypotheses a photo, fast, for self-critical training (Rennie et al., arXiv:1612.00563).

    Equal to pycocoevalcap's `compute_cider` with the document frequencies of the references given here. Holds about
    6 kB a photo and one dictionary of all n-grams. Reads only after construction, so threads may share it.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        """`references[photo]` are the texts of a training photo. Raises DataError as `cider_d` does."""
        _check(references)
        self._index: dict[Ngram, int] = {}
        counted = [[self._count_known(normalise(text)) for text in of_photo] for of_photo in references]
        frequency = np.zeros(len(self._index))
        for of_photo in counted:
            frequency[np.unique(np.concatenate([ngrams for ngrams, _, _ in of_photo]))] += 1
        self._largest_idf = float(np.log(len(references)))
        self._idf = self._largest_idf - np.log(frequency)
        self._order = np.fromiter((len(ngram) - 1 for ngram in self._index), np.int64, len(self._index))
        self._photos = [self._vectorise(of_photo) for of_photo in counted]

    def reward(self, photo: int, hypotheses: Sequence[str]) -> list[float]:
        """CIDEr-D, 0..10, of each hypothesis against the references of the photo at that index."""
        references = self._photos[photo]
        weights = np.zeros((len(hypotheses), len(references.ngrams)))
        squares = np.zeros((len(hypotheses), LONGEST_NGRAM))
        lengths = np.zeros(len(hypotheses))
        for row, text in enumerate(hypotheses):
            counts = _count(normalise(text))
            lengths[row] = _length(counts)
            ngrams = np.fromiter((self._index.get(ngram, -1) for ngram in counts), np.int64, len(counts))
            order = np.fromiter((len(ngram) - 1 for ngram in counts), np.int64, len(counts))
            idf = np.where(ngrams < 0, self._largest_idf, self._idf[ngrams]) if len(self._idf) else self._largest_idf
            tf_idf = np.fromiter(counts.values(), np.float64, len(counts)) * idf
            squares[row] = np.bincount(order, tf_idf**2, LONGEST_NGRAM)
            columns = np.searchsorted(references.ngrams, ngrams)
            shared = np.isin(ngrams, references.ngrams)
            weights[row, columns[shared]] = tf_idf[shared]
        overlap = np.minimum(weights[:, None], references.weights) * references.weights
        by_order = np.eye(LONGEST_NGRAM)[self._order[references.ngrams]]
        products = np.sqrt(squares)[:, None] * references.norms
        cosines = overlap @ by_order / np.where(products == 0, 1, products)
        penalty = np.exp(-((lengths[:, None] - references.lengths) ** 2) / (2 * SIGMA**2))
        scores: list[float] = (10 * (cosines.mean(axis=2) * penalty).mean(axis=1)).tolist()
        return scores

    def _count_known(self, text: str) -> tuple[Integers, Floats, float]:
        counts = _count(text)
        ngrams = np.fromiter((self._index.setdefault(n, len(self._index)) for n in counts), np.int64, len(counts))
        return ngrams, np.fromiter(counts.values(), np.float64, len(counts)), _length(counts)

    def _vectorise(self, counted: list[tuple[Integers, Floats, float]]) -> _References:
        distinct = np.unique(np.concatenate([ngrams for ngrams, _, _ in counted]))
        weights = np.zeros((len(counted), len(distinct)))
        norms = np.zeros((len(counted), LONGEST_NGRAM))
        for row, (ngrams, counts, _) in enumerate(counted):
            tf_idf = counts * self._idf[ngrams]
            weights[row, np.searchsorted(distinct, ngrams)] = tf_idf
            norms[row] = np.sqrt(np.bincount(self._order[ngrams], tf_idf**2, LONGEST_NGRAM))
        return _References(distinct, weights, norms, np.array([length for _, _, length in counted]))


def _count(text: str) -> Counter[Ngram]:
    words = text.split()
    return Counter(
        tuple(words[start : start + n]) for n in range(1, LONGEST_NGRAM + 1) for start in range(len(words) - n + 1)
    )


def _length(counts: Counter[Ngram]) -> float:
    # pycocoevalcap counts bigrams, one fewer than words, but 0 for no word and for one alike; kept for equality.
    return float(sum(count for ngram, count in counts.items() if len(ngram) == 2))


def _check(references: Sequence[Sequence[str]]) -> None:
    if not references:
        raise DataError("no photos to score; give at least one photo with references")
    for photo, of_photo in enumerate(references):
        if not of_photo:
            raise DataError(f"the photo at index {photo} has no references; give it at least one caption")
