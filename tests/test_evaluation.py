from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rucap.data.records import Question, Record
from rucap.errors import DataError
from rucap.evaluation import evaluate as module
from rucap.evaluation.evaluate import evaluate
from rucap.evaluation.metrics import caption_scores
from rucap.evaluation.results import RIGHT_CAPTION


@dataclass(frozen=True)
class Text:
    text: str
    confidence: float | None = None


CAPTIONS = ("Кот спит на диване", "Собака бежит по траве", "Пустая дорога в горах", "Мальчик играет в мяч")


def make(index: int) -> Record:
    caption = CAPTIONS[index]
    references = (caption, f"Вот {caption}", f"{caption} днём", f"Тут {caption}", caption.upper())
    questions = (
        Question(f"Кто на фото {index}?", caption.split()[0]),
        Question(f"Это {index}?", "да" if index else "нет"),
    )
    return Record(Path(f"{index}.jpg"), "test", references, questions[: index + 1])


RECORDS = [make(index) for index in range(4)]
TRAIN = [
    Record(Path("t0.jpg"), "train", ("Собака бежит по траве", "Собака бежит"), (Question("Это?", "да"),)),
    Record(Path("t1.jpg"), "train", ("Собака бежит",), (Question("Кто?", "Собака"), Question("Это?", "да"))),
]


def describe(photos: Sequence[Path]) -> list[Text]:
    captions = {"0.jpg": CAPTIONS[0], "1.jpg": CAPTIONS[1], "2.jpg": "Поле", "3.jpg": CAPTIONS[3]}
    return [Text(captions[photo.name], 0.1 if photo.name == "2.jpg" else 0.9) for photo in photos]


def ask(photos: Sequence[Path], questions: Sequence[str]) -> list[Text]:
    return [
        Text("да" if question.startswith("Это") else "кот", None) for _, question in zip(photos, questions, strict=True)
    ]


def test_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    seen: list[tuple[int, int]] = []
    features = ([[1, 0], [0, 1], [1, 0], [1, 0]], [[0, 1], [1, 0]])
    found = evaluate(describe, RECORDS, TRAIN, ask, features, lambda done, total: seen.append((done, total)))

    assert [row.writer for row in found.captions] == ["model", "nearest_neighbour", "most_frequent", "human"]
    references = [record.captions for record in RECORDS]
    known = {"собака бежит по траве", "собака бежит"}
    said = [text.text for text in describe([record.image for record in RECORDS])]
    assert found.captions[0].scores == caption_scores(said, references, known)[0]
    neighbours = ["Собака бежит", "Собака бежит по траве", "Собака бежит", "Собака бежит"]
    assert found.captions[1].scores.cider == caption_scores(neighbours, references)[0].cider
    assert found.captions[2].scores == caption_scores(["Собака бежит"] * 4, references, known)[0]
    assert found.captions[0].scores.cider > found.captions[1].scores.cider > 0

    assert [prediction.caption for prediction in found.predictions] == said
    assert [prediction.right for prediction in found.predictions] == [True, True, False, True]
    replies = [[(reply.question, reply.answer) for reply in prediction.replies] for prediction in found.predictions]
    assert [[question for question, _ in of_photo] for of_photo in replies] == [list(r.questions) for r in RECORDS]
    assert replies[3] == [(RECORDS[3].questions[0], "кот"), (RECORDS[3].questions[1], "да")]

    open_row, yes_no_row = found.answers
    assert (open_row.kind, open_row.scores.questions, open_row.scores.exact) == ("open", 4, 25)
    assert (open_row.majority, open_row.majority_scores.exact) == ("Собака", 25)
    assert (yes_no_row.scores.questions, yes_no_row.scores.exact, yes_no_row.majority) == (3, 100, "да")

    assert found.caption_reliability is not None
    assert found.caption_reliability.auroc == 1
    assert found.caption_reliability.calibration_error == pytest.approx(0.1)
    assert found.answer_reliability is None
    assert seen == [(3, 11), (4, 11), (7, 11), (10, 11), (11, 11)]


def test_captions_alone() -> None:
    found = evaluate(describe, RECORDS)
    assert [row.writer for row in found.captions] == ["model", "human"]
    assert found.answers == ()
    assert all(prediction.replies == () for prediction in found.predictions)
    assert found.captions[0].scores.novel is None


def test_no_majority_without_train_questions() -> None:
    found = evaluate(describe, RECORDS, [Record(Path("t.jpg"), "train", ("Кот",))], ask)
    assert [(row.majority, row.majority_scores) for row in found.answers] == [("", None)] * 2


def test_right_caption_is_a_matter_of_the_threshold() -> None:
    found = evaluate(describe, RECORDS)
    assert [p.cider >= RIGHT_CAPTION for p in found.predictions] == [p.right for p in found.predictions]
    assert any(p.right for p in found.predictions) and not all(p.right for p in found.predictions)


def test_some_confidences_missing() -> None:
    found = evaluate(lambda photos: [Text("Кот", 0.5 if photo.name == "0.jpg" else None) for photo in photos], RECORDS)
    assert found.caption_reliability is None


def test_as_json() -> None:
    values = json.loads(json.dumps(evaluate(describe, RECORDS, TRAIN, ask).to_dict()))
    assert set(values) == {"captions", "answers", "caption_reliability", "answer_reliability"}
    assert values["captions"]["model"]["cider"] > values["captions"]["most_frequent"]["cider"]
    assert values["answers"]["yes_no"]["majority_scores"]["exact"] == 100
    assert values["caption_reliability"]["bins"][1]["count"] == 1


def test_errors() -> None:
    with pytest.raises(DataError, match="no photos"):
        evaluate(describe, [])
    with pytest.raises(DataError, match="3 texts for 4"):
        evaluate(lambda photos: describe(photos)[:-1], RECORDS)
    with pytest.raises(DataError, match="0 texts for 7"):
        evaluate(describe, RECORDS, ask=lambda photos, questions: [])
