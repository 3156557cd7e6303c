from __future__ import annotations

import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer

from rucap.errors import DataError
from rucap.evaluation.cider import CiderReward, cider_d
from rucap.evaluation.normalise import normalise

WORDS = ["кот", "собака", "ёлка", "бежит", "спит", "на", "траве", "снегу", "большая", "белая", "-"]


def sentences(generator: random.Random, count: int) -> list[str]:
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 9))).capitalize() + "." for _ in range(count)]


def corpus(photos: int = 40) -> tuple[list[str], list[list[str]]]:
    generator = random.Random(0)
    return sentences(generator, photos), [sentences(generator, generator.choice([1, 3, 5])) for _ in range(photos)]


def test_normalisation() -> None:
    assert normalise("  Тёмно-синий Ёж,\nс «яблоком» №5!  ") == "темно синий еж с яблоком 5"
    assert normalise("е\u0308лка, за\u0301мок, чай") == "елка замок чай"
    assert normalise("?!… 🐈") == ""


def test_score_is_pycocoevalcap_times_100() -> None:
    hypotheses, references = corpus()
    expected, each = Cider().compute_score(
        {i: [normalise(text) for text in texts] for i, texts in enumerate(references)},
        {i: [normalise(text)] for i, text in enumerate(hypotheses)},
    )
    score, scores = cider_d(hypotheses, references)
    assert score == pytest.approx(100 * expected)
    assert scores == pytest.approx((100 * each).tolist())


def test_identical_captions_score_1000() -> None:
    texts = ["Рыжий кот крепко спит", "Белая собака громко лает", "Пустая дорога в горах"]
    score, scores = cider_d([text.upper() + "!" for text in texts], [[text] for text in texts])
    assert scores == pytest.approx([1000] * 3)
    assert score == pytest.approx(1000)


def test_reward_equals_pycocoevalcap() -> None:
    _, references = corpus()
    generator = random.Random(1)
    frequencies = CiderScorer()
    for texts in references:
        frequencies += (None, [normalise(text) for text in texts])
    frequencies.compute_doc_freq()

    reward = CiderReward(references)
    for photo, texts in enumerate(references):
        hypotheses = [*sentences(generator, 4), texts[0], "", "слово которого никто не писал", "кот " * 30]
        scorer = CiderScorer()
        scorer.document_frequency = frequencies.document_frequency
        for hypothesis in hypotheses:
            scorer += (normalise(hypothesis), [normalise(text) for text in texts])
        # pycocoevalcap takes the number of documents from the pairs it scores: fill up to that of the training set.
        while scorer.size() < len(references):
            scorer += ("", [""])
        expected = scorer.compute_cider()[: len(hypotheses)]
        np.testing.assert_allclose(reward.reward(photo, hypotheses), expected, atol=1e-6)
        assert max(expected) > 0.5


def test_reward_agrees_with_the_score_on_its_own_references() -> None:
    hypotheses, references = corpus()
    reward = CiderReward(references)
    rewards = [reward.reward(photo, [text])[0] for photo, text in enumerate(hypotheses)]
    assert [100 * value for value in rewards] == pytest.approx(cider_d(hypotheses, references)[1], abs=1e-6)


def test_empty_texts_score_nothing() -> None:
    assert CiderReward([["!"], ["?"]]).reward(0, ["", "кот"]) == [0, 0]
    assert CiderReward([["кот"], ["!"]]).reward(1, []) == []


def test_bad_counts() -> None:
    with pytest.raises(DataError, match="2 captions for 1 photos"):
        cider_d(["кот", "кот"], [["кот"]])
    with pytest.raises(DataError, match="index 1 has no references"):
        CiderReward([["кот"], []])
    with pytest.raises(DataError, match="no photos"):
        cider_d([], [])
