"""What an evaluation found, as data: for tables, for the page, for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rucap.data.records import Question, Record
from rucap.evaluation.calibration import Reliability
from rucap.evaluation.metrics import AnswerScores, CaptionScores, is_exact

RIGHT_CAPTION = 25.0
"""CIDEr-D from which a caption counts as right where confidences are checked.

Three of four reference captions reach it against the others of their photo (lower quartiles 23.5 to 27.5 on
dev and test of ruflickr8k and ruphotos), and about one in a hundred captions of another photo does. A fixed value, and
not the model's own median, so that a better model may be more confident.
"""

Writer = Literal["model", "nearest_neighbour", "most_frequent", "human"]
AnswerKind = Literal["open", "yes_no"]


@dataclass(frozen=True)
class CaptionRow:
    """A row of the caption table."""

    writer: Writer
    scores: CaptionScores


@dataclass(frozen=True)
class AnswerRow:
    """A row of the answer table: a model's answers beside the most frequent answer of the train split."""

    kind: AnswerKind
    scores: AnswerScores
    majority: str
    majority_scores: AnswerScores | None
    """None where the train split has no such questions."""


@dataclass(frozen=True)
class Reply:
    """A question of the data set with the answer that the model gave."""

    question: Question
    answer: str
    confidence: float | None

    @property
    def right(self) -> bool:
        """Exact match, normalised."""
        return is_exact(self.answer, self.question.answer)


@dataclass(frozen=True)
class Prediction:
    """All that a model said of one photo."""

    record: Record
    caption: str
    confidence: float | None
    cider: float
    replies: tuple[Reply, ...]

    @property
    def right(self) -> bool:
        """Whether the caption agrees with the references as most of them do among themselves (RIGHT_CAPTION)."""
        return self.cider >= RIGHT_CAPTION


@dataclass(frozen=True)
class Evaluation:
    """A captioner's results on a data set."""

    captions: tuple[CaptionRow, ...]
    """The model's first."""
    answers: tuple[AnswerRow, ...]
    """Empty where nothing was asked."""
    caption_reliability: Reliability | None
    """None unless every caption came with a confidence; so for answers."""
    answer_reliability: Reliability | None
    predictions: tuple[Prediction, ...]
    """In the order of the records."""

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, ready for JSON."""
        captions, answers = self.caption_reliability, self.answer_reliability
        return {
            "captions": {row.writer: row.scores.to_dict() for row in self.captions},
            "answers": {
                row.kind: {
                    **row.scores.to_dict(),
                    "majority": row.majority,
                    "majority_scores": row.majority_scores.to_dict() if row.majority_scores else None,
                }
                for row in self.answers
            },
            "caption_reliability": captions.to_dict() if captions else None,
            "answer_reliability": answers.to_dict() if answers else None,
        }
