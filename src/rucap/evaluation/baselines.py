"""What costs no model: the captions and answers to beat, and a person's, which no model here beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from rucap.data.records import Record
from rucap.errors import DataError
from rucap.evaluation.metrics import CaptionScores, caption_scores, is_yes_or_no, token_f1
from rucap.evaluation.normalise import normalise

HUMAN_REFERENCES = 5
"""A photo needs that many captions to show how people score."""
_ROWS = 256
"""Photos whose similarities to all train photos are held at once."""


def most_frequent_caption(train: Sequence[Record]) -> str:
    """The caption that most train photos have, compared normalised; the first of equals."""
    return _most_frequent(caption for record in train for caption in record.captions)


def majority_answer(train: Sequence[Record], yes_or_no: bool) -> str:
    """The most frequent answer of the train split to questions of that kind; "" where it has none."""
    questions = (question for record in train for question in record.questions)
    return _most_frequent(question.answer for question in questions if is_yes_or_no(question) == yes_or_no)


def nearest_neighbours(features: npt.ArrayLike, train_features: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The train photo most alike each photo by cosine: [photos, width] and [train photos, width] to [photos].

    Raises DataError when the arrays are not of these shapes or hold numbers that are not finite.
    """
    rows, others = np.asarray(features, dtype=np.float32), np.asarray(train_features, dtype=np.float32)
    if rows.ndim != 2 or others.ndim != 2 or rows.shape[1] != others.shape[1] or not len(others):
        raise DataError(f"features {rows.shape} and {others.shape}: two matrices of one width are expected")
    if not (np.isfinite(rows).all() and np.isfinite(others).all()):
        raise DataError("the features hold numbers that are not finite; make them again")
    # The length of a row does not change which train photo is nearest to it, so only the train photos are scaled.
    others = others / np.maximum(np.linalg.norm(others, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    nearest = [np.argmax(rows[start : start + _ROWS] @ others.T, axis=1) for start in range(0, len(rows), _ROWS)]
    return np.concatenate([*nearest, np.empty(0, np.int64)])


def neighbour_captions(features: npt.ArrayLike, train_features: npt.ArrayLike, train: Sequence[Record]) -> list[str]:
    """For each photo a caption of the train photo most alike: the one most like that photo's other captions.

    Raises DataError as `nearest_neighbours` does and when the train photos are not as many as their features.
    """
    nearest = nearest_neighbours(features, train_features)
    if len(train) != len(np.asarray(train_features)):
        raise DataError(f"{len(np.asarray(train_features))} features of {len(train)} train photos; make them again")
    return [_central(train[photo].captions) for photo in nearest]


def human_scores(records: Sequence[Record], known: Collection[str] = frozenset()) -> CaptionScores | None:
    """How one of a photo's five references scores against the other four; None where no photo has five.

    Photos with fewer are left out. Every score is the mean of five: with the first captions as hypotheses, then the
    second ones and so on, for those of one index may be of one kind (ruphotos' first are short). Against the model's
    row it is modest: best-of-references scores (BLEU, chrF, ROUGE) gain from the fifth reference, which people lack.
    """
    photos = [record.captions for record in records if len(record.captions) == HUMAN_REFERENCES]
    if not photos:
        return None
    each = []
    for index in range(HUMAN_REFERENCES):
        rest = [captions[:index] + captions[index + 1 :] for captions in photos]
        each.append(caption_scores([captions[index] for captions in photos], rest, known)[0])
    means: dict[str, Any] = {
        name: fmean(getattr(scores, name) for scores in each) for name in asdict(each[0]) if name != "novel" or known
    }
    whole = {"photos": len(photos), "vocabulary": round(means["vocabulary"])}
    return CaptionScores(**({"novel": None} | means | whole))


def _most_frequent(texts: Iterable[str]) -> str:
    written: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for text in texts:
        form = normalise(text)
        written.setdefault(form, text)
        counts[form] += 1
    return written[counts.most_common(1)[0][0]] if counts else ""


def _central(captions: Sequence[str]) -> str:
    return max(captions, key=lambda caption: sum(token_f1(caption, other) for other in captions))
