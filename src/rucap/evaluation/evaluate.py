"""Runs a captioner over a data set and gathers all that is said of it: scores, baselines, reliability, predictions.

The captioner is two callables; what stands behind them is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy.typing as npt

from rucap.data.records import Record
from rucap.errors import DataError
from rucap.evaluation.baselines import human_scores, majority_answer, most_frequent_caption, neighbour_captions
from rucap.evaluation.calibration import Reliability, reliability
from rucap.evaluation.metrics import answer_scores, caption_scores, is_yes_or_no
from rucap.evaluation.normalise import normalise
from rucap.evaluation.results import AnswerKind, AnswerRow, CaptionRow, Evaluation, Prediction, Reply, Writer

BATCH = 64
"""Photos, or questions, given to a captioner at once."""


class Written(Protocol):
    """A caption or an answer, as `rucap.captioner` gives them."""

    @property
    def text(self) -> str:
        """The caption or answer."""
        ...

    @property
    def confidence(self) -> float | None:
        """0..1; None where the model is not calibrated."""
        ...


Describe = Callable[[Sequence[Path]], Sequence[Written]]
"""Photos to one caption each."""
Ask = Callable[[Sequence[Path], Sequence[str]], Sequence[Written]]
"""Photos and one question of each to one answer each."""
Progress = Callable[[int, int], None]
"""Called with the number of photos and questions done, and of all."""


def evaluate(
    describe: Describe,
    records: Sequence[Record],
    train: Sequence[Record] = (),
    ask: Ask | None = None,
    features: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Captions the photos of `records` (one split), answers their questions if `ask` is given, and scores all.

    `train` serves the baselines, and says which captions are novel. `features` of the photos, [photos, width], and of
    the train photos, [train photos, width], give the nearest neighbour's row.
    Raises DataError when there are no records, or the captioner gives other than one text a photo or question.
    """
    if not records:
        raise DataError("no photos to evaluate on; look at the split's name")
    asked = [(record, question) for record in records for question in record.questions] if ask else []
    done, total = 0, len(records) + len(asked)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    captions: list[Written] = []
    for start in range(0, len(records), BATCH):
        photos = [record.image for record in records[start : start + BATCH]]
        captions += _same_count(describe(photos), len(photos))
        advance(len(photos))
    replies: list[Reply] = []
    for start in range(0, len(asked) if ask else 0, BATCH):
        assert ask is not None
        batch = asked[start : start + BATCH]
        answers = ask([record.image for record, _ in batch], [question.question for _, question in batch])
        for (_, question), answer in zip(batch, _same_count(answers, len(batch)), strict=True):
            replies.append(Reply(question, answer.text, answer.confidence))
        advance(len(batch))

    known = frozenset(normalise(caption) for record in train for caption in record.captions)
    references = [record.captions for record in records]
    scores, ciders = caption_scores([caption.text for caption in captions], references, known)
    rows = [CaptionRow("model", scores)]
    if features is not None:
        rows.append(_baseline("nearest_neighbour", neighbour_captions(*features, train), references, known))
    if train:
        rows.append(_baseline("most_frequent", [most_frequent_caption(train)] * len(records), references, known))
    if human := human_scores(records, known):
        rows.append(CaptionRow("human", human))

    of_photo = iter(replies)
    predictions = tuple(
        Prediction(
            record,
            caption.text,
            caption.confidence,
            cider,
            tuple(next(of_photo) for _ in record.questions) if ask else (),
        )
        for record, caption, cider in zip(records, captions, ciders, strict=True)
    )
    return Evaluation(
        captions=tuple(rows),
        answers=_answer_rows(replies, train),
        caption_reliability=_reliability([(p.confidence, p.right) for p in predictions]),
        answer_reliability=_reliability([(reply.confidence, reply.right) for reply in replies]),
        predictions=predictions,
    )


def _baseline(
    writer: Writer, captions: Sequence[str], references: Sequence[Sequence[str]], known: frozenset[str]
) -> CaptionRow:
    return CaptionRow(writer, caption_scores(captions, references, known)[0])


def _answer_rows(replies: Sequence[Reply], train: Sequence[Record]) -> tuple[AnswerRow, ...]:
    rows = []
    kinds: tuple[tuple[AnswerKind, bool], ...] = (("open", False), ("yes_no", True))
    for kind, yes_or_no in kinds:
        of_kind = [reply for reply in replies if is_yes_or_no(reply.question) == yes_or_no]
        if not of_kind:
            continue
        right = [reply.question.answer for reply in of_kind]
        majority = majority_answer(train, yes_or_no)
        rows.append(
            AnswerRow(
                kind,
                answer_scores([reply.answer for reply in of_kind], right),
                majority,
                answer_scores([majority] * len(right), right) if majority else None,
            )
        )
    return tuple(rows)


def _reliability(outcomes: Sequence[tuple[float | None, bool]]) -> Reliability | None:
    confidences = [confidence for confidence, _ in outcomes if confidence is not None]
    if not confidences or len(confidences) < len(outcomes):
        return None
    return reliability(confidences, [right for _, right in outcomes])


def _same_count(texts: Sequence[Written], expected: int) -> Sequence[Written]:
    if len(texts) != expected:
        raise DataError(f"the captioner gave {len(texts)} texts for {expected} photos; it must give one for each")
    return texts
