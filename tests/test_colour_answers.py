"""The rule that puts answers about colours into the question's form, against forms as a grammar gives them."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))

import colour_answers


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("чёрный", "чёрного"),
        ("Белая", "Белого"),
        ("голубой", "голубого"),
        ("синяя", "синего"),
        ("синие", "синего"),
        ("рыжие", "рыжего"),
        ("рыжая", "рыжего"),
        ("серенькие", "серенького"),
        ("тёмно-синее", "тёмно-синего"),
        ("белая и чёрная", "белого и чёрного"),
        ("красного", "красного"),
        ("хаки", "хаки"),
        ("белая с рыжим", "белая с рыжим"),
    ],
)
def test_colours_in_the_genitive(answer, wanted):
    assert colour_answers.answer_in_genitive("Какого цвета кот?", answer) == wanted


def test_other_questions_keep_their_answers():
    assert colour_answers.answer_in_genitive("Какой шарф?", "красный") == "красный"


def test_only_the_train_split_changes(tmp_path, monkeypatch):
    asked = [{"question": "Какого цвета мяч?", "answer": "красный"}]
    rows = [{"image": f"{split}.jpg", "split": split, "questions": asked} for split in ("train", "dev", "test")]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")])
    colour_answers.main()
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["questions"][0]["answer"] for row in found] == ["красного", "красный", "красный"]
    assert [row["image"] for row in found] == [str(tmp_path / f"{row['split']}.jpg") for row in rows]
