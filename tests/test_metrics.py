from __future__ import annotations

import random

import pytest
import sacrebleu

from rucap.data.records import Question
from rucap.errors import DataError
from rucap.evaluation.metrics import (
    RussianTokenizer,
    answer_scores,
    caption_scores,
    is_exact,
    is_yes_or_no,
    token_f1,
)

HYPOTHESES = ["Собака бежит по траве", "Ёлка стоит у дома!", "Мальчик играет"]
REFERENCES = [
    ["Большая собака бежит по зелёной траве", "Пёс бежит по траве"],
    ["Елка стоит около дома"],
    ["Мальчик играет в мяч", "Ребёнок играет во дворе", "Мальчик на траве"],
]


def test_identical_texts_reach_the_top() -> None:
    texts = [f"{text} сегодня днём" for text in HYPOTHESES]
    scores, ciders = caption_scores([text.upper() for text in texts], [[text] for text in texts])
    top = (scores.bleu1, scores.bleu4, scores.chrf, scores.rouge1, scores.rouge2, scores.rouge_l)
    assert top == pytest.approx((100,) * 6)
    assert ciders == pytest.approx([1000] * 3)


def test_bleu_and_chrf_are_sacrebleu_on_normalised_text() -> None:
    scores, _ = caption_scores(HYPOTHESES, REFERENCES)
    texts = ["собака бежит по траве", "елка стоит у дома", "мальчик играет"]
    streams = [
        ["большая собака бежит по зеленой траве", "елка стоит около дома", "мальчик играет в мяч"],
        ["пес бежит по траве", None, "ребенок играет во дворе"],
        [None, None, "мальчик на траве"],
    ]
    for order, score in enumerate((scores.bleu1, scores.bleu2, scores.bleu3, scores.bleu4), 1):
        expected = sacrebleu.BLEU(tokenize="none", max_ngram_order=order).corpus_score(texts, streams)
        assert score == pytest.approx(expected.score)
    assert scores.chrf == pytest.approx(sacrebleu.corpus_chrf(texts, streams).score)
    assert 0 < scores.bleu4 < scores.bleu1 < 100


def naive_rouge_l(words: list[str], others: list[str]) -> float:
    longest = [[0] * (len(others) + 1) for _ in range(len(words) + 1)]
    for i, word in enumerate(words):
        for j, other in enumerate(others):
            longest[i + 1][j + 1] = longest[i][j] + 1 if word == other else max(longest[i][j + 1], longest[i + 1][j])
    return 2 * longest[-1][-1] / (len(words) + len(others))


def test_rouge_keeps_cyrillic_and_takes_the_best_reference() -> None:
    scores, _ = caption_scores(HYPOTHESES, REFERENCES)
    tokenizer = RussianTokenizer()
    best_of_photos = [
        [
            max(score(tokenizer.tokenize(text), tokenizer.tokenize(reference)) for reference in references)
            for text, references in zip(HYPOTHESES, REFERENCES, strict=True)
        ]
        for score in (naive_rouge_l, lambda words, others: token_f1(" ".join(words), " ".join(others)))
    ]
    assert scores.rouge_l == pytest.approx(100 * sum(best_of_photos[0]) / 3)
    assert scores.rouge1 == pytest.approx(100 * sum(best_of_photos[1]) / 3)
    # By hand: 3 of 3 and 3 bigrams; 1 of 3 and 3; 1 of 1 and 3.
    assert scores.rouge2 == pytest.approx(100 * (4 / 6 + 2 / 6 + 2 / 4) / 3)


def test_tokenizer_normalises() -> None:
    assert RussianTokenizer().tokenize("Тёмно-синий ЁЖ!") == ["темно", "синий", "еж"]


def test_length_novelty_and_vocabulary() -> None:
    scores, _ = caption_scores(HYPOTHESES, REFERENCES, known={"елка стоит у дома", "кот"})
    assert scores.words == pytest.approx(10 / 3)
    assert scores.novel == pytest.approx(200 / 3)
    assert scores.vocabulary == 10
    assert caption_scores(HYPOTHESES, REFERENCES)[0].novel is None
    assert scores.to_dict()["photos"] == 3


def test_word_order_of_photos_does_not_matter() -> None:
    pairs = list(zip(HYPOTHESES, REFERENCES, strict=True))
    random.Random(0).shuffle(pairs)
    shuffled = caption_scores([text for text, _ in pairs], [references for _, references in pairs])[0]
    assert shuffled.to_dict() == pytest.approx(caption_scores(HYPOTHESES, REFERENCES)[0].to_dict())


def test_an_empty_caption_is_scored_and_an_empty_reference_passed_over() -> None:
    scores, ciders = caption_scores(["", "кот спит"], [["кот", "!"], ["кот спит"]])
    assert ciders[0] == 0
    assert scores.rouge1 == pytest.approx(50)
    with pytest.raises(DataError, match="index 1 hold no word"):
        caption_scores(["кот", "кот"], [["кот"], ["!", "…"]])


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("в зелёной траве", "В зеленой траве!", 1),
        ("на траве", "в зелёной траве", 0.4),
        ("да да да", "да", 0.5),
        ("кот", "пёс", 0),
        ("", "кот", 0),
        ("", "", 1),
    ],
)
def test_token_f1(text: str, other: str, expected: float) -> None:
    assert token_f1(text, other) == pytest.approx(expected)
    assert token_f1(other, text) == pytest.approx(expected)


def test_answers() -> None:
    scores = answer_scores(["Чёрный", "на траве", ""], ["черный", "в зелёной траве", "две"])
    assert scores.to_dict() == pytest.approx({"questions": 3, "exact": 100 / 3, "f1": 100 * 1.4 / 3})
    with pytest.raises(DataError, match="1 answers to 2 questions"):
        answer_scores(["да"], ["да", "нет"])
    with pytest.raises(DataError):
        answer_scores([], [])


def test_kinds_of_answers() -> None:
    assert is_exact("Да.", "да")
    assert not is_exact("да", "нет")
    assert [is_yes_or_no(Question("?", answer)) for answer in ("Да", "нет.", "далматинец", "")] == [
        True,
        True,
        False,
        False,
    ]
