from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rucap.data.records import Question, Record
from rucap.errors import DataError
from rucap.evaluation.baselines import (
    human_scores,
    majority_answer,
    most_frequent_caption,
    nearest_neighbours,
    neighbour_captions,
)
from rucap.evaluation.metrics import caption_scores


def record(*captions: str, answers: tuple[str, ...] = ()) -> Record:
    return Record(Path("a.jpg"), "train", captions, tuple(Question("Что?", answer) for answer in answers))


def test_most_frequent_caption_compares_normalised_and_keeps_the_writing() -> None:
    train = [record("Кот", "Ёлка у дома"), record("елка у дома."), record("Собака")]
    assert most_frequent_caption(train) == "Ёлка у дома"
    assert most_frequent_caption([]) == ""


def test_majority_answer_by_kind() -> None:
    train = [record("Кот", answers=("да", "Нет", "нет", "белый", "Чёрный", "черный", "кот"))]
    assert majority_answer(train, yes_or_no=True) == "Нет"
    assert majority_answer(train, yes_or_no=False) == "Чёрный"
    assert majority_answer([record("Кот")], yes_or_no=True) == ""


def test_nearest_neighbours_equal_a_naive_loop() -> None:
    generator = np.random.default_rng(0)
    features, others = (
        generator.normal(size=(600, 8)),
        generator.normal(size=(40, 8)) * generator.lognormal(size=(40, 1)),
    )
    expected = [
        max(range(40), key=lambda j: row @ others[j] / np.linalg.norm(others[j]) / np.linalg.norm(row))
        for row in features
    ]
    assert nearest_neighbours(features, others).tolist() == expected


def test_neighbour_caption_is_the_central_one() -> None:
    train = [record("Кот"), record("Собака", "Большая собака бежит", "Белая собака бежит по снегу")]
    assert neighbour_captions([[0.1, 0.9]], [[5, 0], [0, 1]], train) == ["Большая собака бежит"]
    assert neighbour_captions([[0.9, 0.1]], [[5, 0], [0, 1]], train) == ["Кот"]


def test_bad_features() -> None:
    with pytest.raises(DataError, match="one width"):
        nearest_neighbours([[1, 2]], [[1, 2, 3]])
    with pytest.raises(DataError, match="not finite"):
        nearest_neighbours([[1, float("nan")]], [[1, 2]])
    with pytest.raises(DataError, match="1 features of 0 train photos"):
        neighbour_captions([[1, 2]], [[1, 2]], [])


def test_human_scores_are_the_mean_over_the_left_out_caption() -> None:
    records = [
        record("Кот спит", "Рыжий кот спит", "Кот дремлет", "Спит кот", "Кот спит на диване"),
        record("Кот"),
        record("Пёс лает", "Лает большой пёс", "Собака лает", "Пёс громко лает", "Пёс у дома"),
    ]
    human = human_scores(records, known={"кот спит"})
    assert human is not None
    each = []
    for index in range(5):
        full = [list(records[photo].captions) for photo in (0, 2)]
        left_out = [captions.pop(index) for captions in full]
        each.append(caption_scores(left_out, full, {"кот спит"})[0])
    assert human.photos == 2
    assert human.cider == pytest.approx(np.mean([scores.cider for scores in each]))
    assert human.rouge_l == pytest.approx(np.mean([scores.rouge_l for scores in each]))
    assert human.novel == pytest.approx(90)
    assert human.cider > 0


def test_no_photo_with_five_captions() -> None:
    assert human_scores([record("Кот", "Пёс")]) is None
