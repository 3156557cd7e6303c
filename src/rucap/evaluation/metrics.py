"""Scores of a whole set of captions or answers, by the field's own libraries, all on normalised text (see `normalise`).

Every score and share is a percentage, but CIDEr-D (0 to 1000, see `cider`). Nothing here knows who wrote the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rucap.data.records import Question
from rucap.errors import DataError
from rucap.evaluation.cider import cider_d
from rucap.evaluation.normalise import normalise

YES_OR_NO = frozenset({"да", "нет"})


@dataclass(frozen=True)
class CaptionScores:
    """One caption a photo against all its references."""

    photos: int
    bleu1: float
    bleu2: float
    bleu3: float
    bleu4: float
    """Of the whole set (Papineni et al. 2002), as sacrebleu has it: its smoothing acts only where no n-gram matches."""
    chrf: float
    """chrF2 (Popović 2015), as sacrebleu has it; of several references the best."""
    rouge1: float
    rouge2: float
    rouge_l: float
    """F, mean over photos; of several references the best (rouge-score's `score_multi`)."""
    cider: float
    words: float
    """Mean length."""
    novel: float | None
    """Share of captions that no photo of the train split has; None where that split is not given."""
    vocabulary: int
    """Different words in all captions."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class AnswerScores:
    """Answers to one kind of questions."""

    questions: int
    exact: float
    f1: float
    """Of the words, mean over questions (Rajpurkar et al., arXiv:1606.05250)."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class RussianTokenizer:
    """What rouge-score asks of a tokenizer; its own drops all Cyrillic letters. Remembers the texts of one set."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, cut by razdel."""
        from razdel import tokenize

        if text not in self._known:
            self._known[text] = [token.text for token in tokenize(normalise(text))]
        return self._known[text]


def caption_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], known: Collection[str] = frozenset()
) -> tuple[CaptionScores, list[float]]:
    """The scores of one caption a photo, and each photo's CIDEr-D; `known` holds the train captions, normalised.

    Raises DataError for an empty set, counts that differ or a photo whose references hold no word.
    """
    from sacrebleu import BLEU, CHRF

    cider, ciders = cider_d(hypotheses, references)
    texts = [normalise(text) for text in hypotheses]
    wanted = [[text for text in map(normalise, of_photo) if text] for of_photo in references]
    if not all(wanted):
        raise DataError(f"the references of the photo at index {wanted.index([])} hold no word; correct them")
    # sacrebleu takes the first references of all photos, then the second ones ...; None where a photo has
    # no more, which its types do not tell.
    columns = range(max(map(len, wanted)))
    streams: Any = [[of_photo[n] if n < len(of_photo) else None for of_photo in wanted] for n in columns]
    bleu = [BLEU(tokenize="none", max_ngram_order=n).corpus_score(texts, streams).score for n in (1, 2, 3, 4)]
    rouge1, rouge2, rouge_l = _rouge(texts, wanted)
    scores = CaptionScores(
        photos=len(texts),
        bleu1=bleu[0],
        bleu2=bleu[1],
        bleu3=bleu[2],
        bleu4=bleu[3],
        chrf=CHRF().corpus_score(texts, streams).score,
        rouge1=rouge1,
        rouge2=rouge2,
        rouge_l=rouge_l,
        cider=cider,
        words=fmean(len(text.split()) for text in texts),
        novel=100 * fmean(text not in known for text in texts) if known else None,
        vocabulary=len({word for text in texts for word in text.split()}),
    )
    return scores, ciders


def is_yes_or_no(question: Question) -> bool:
    """Whether its right answer is «да» or «нет»; all other questions are open."""
    return normalise(question.answer) in YES_OR_NO


def is_exact(answer: str, right: str) -> bool:
    """Whether two answers are the same once normalised."""
    return normalise(answer) == normalise(right)


def token_f1(text: str, other: str) -> float:
    """Harmonic mean of precision and recall of the words, 0..1; of two texts without words 1."""
    words, others = normalise(text).split(), normalise(other).split()
    if not words and not others:
        return 1.0
    shared = (Counter(words) & Counter(others)).total()
    return 2 * shared / (len(words) + len(others))


def answer_scores(answers: Sequence[str], right: Sequence[str]) -> AnswerScores:
    """The scores of one answer a question. Raises DataError for an empty set and for counts that differ."""
    if len(answers) != len(right) or not right:
        raise DataError(
            f"{len(answers)} answers to {len(right)} questions; give one answer a question, and any question"
        )
    pairs = list(zip(answers, right, strict=True))
    return AnswerScores(
        questions=len(pairs),
        exact=100 * fmean(is_exact(*pair) for pair in pairs),
        f1=100 * fmean(token_f1(*pair) for pair in pairs),
    )


def _rouge(texts: list[str], references: list[list[str]]) -> tuple[float, float, float]:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(kinds, tokenizer=RussianTokenizer())
    scores = [scorer.score_multi(wanted, text) for text, wanted in zip(texts, references, strict=True)]
    first, second, longest = (100 * fmean(float(score[kind].fmeasure) for score in scores) for kind in kinds)
    return first, second, longest
