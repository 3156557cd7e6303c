import numpy as np
import pytest

from rucap.errors import ModelError
from rucap.model.config import HintsConfig
from rucap.model.hints import Hints

LABELS = [("корги", "собака"), ("журавль", "птица"), ("собака", "собака"), ("журавль", "птица"), ("палатка", "")]


def hints(count=2, template="{names}; {general}"):
    return Hints(LABELS, HintsConfig(file="labels.tsv", count=count, template=template))


def logits(*order):
    scores = np.zeros((1, len(LABELS)), dtype=np.float32)
    scores[0, list(order)] = -np.arange(len(order))
    scores[0, [i for i in range(len(LABELS)) if i not in order]] = -100
    return scores


def test_likeliest_names_and_the_general_word_of_the_first():
    assert hints().texts(logits(1, 4)) == ["журавль, палатка; птица"]


def test_general_word_among_the_names_is_dropped_with_its_separator():
    assert hints().texts(logits(0, 2)) == ["корги, собака"]
    assert hints(template="{general}: {names}").texts(logits(0, 2)) == ["корги, собака"]


def test_missing_general_word():
    assert hints(count=1).texts(logits(4)) == ["палатка"]


def test_classes_of_one_name_are_named_once():
    assert hints(count=3).texts(logits(1, 3, 4, 0)) == ["журавль, палатка, корги; птица"]


def test_more_than_there_are():
    assert hints(count=100).texts(logits(0, 1, 2, 3, 4)) == ["корги, журавль, собака, палатка"]


def test_each_photo_has_its_own():
    assert hints(count=1).texts(np.concatenate([logits(0), logits(1)])) == ["корги; собака", "журавль; птица"]
    assert hints().texts(np.zeros((0, len(LABELS)), dtype=np.float32)) == []


def test_logits_of_another_encoder():
    with pytest.raises(ModelError, match="5 labels"):
        hints().texts(np.zeros((1, 7), dtype=np.float32))


def test_file(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("".join(f"{name}\t{general}\n" for name, general in LABELS), encoding="utf-8")
    assert Hints.from_file(path, HintsConfig("labels.tsv", 4)).labels == tuple(LABELS)


@pytest.mark.parametrize("line", ["корги", "\tсобака", "корги\tсобака\tзверь", ""])
def test_broken_line_is_named(tmp_path, line):
    path = tmp_path / "labels.tsv"
    path.write_text(f"корги\tсобака\n{line}\nкошка\t\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"labels\.tsv:2"):
        Hints.from_file(path, HintsConfig("labels.tsv", 4))


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        Hints.from_file(tmp_path / "labels.tsv", HintsConfig("labels.tsv", 4))


def test_sure_names_are_marked_and_improbable_ones_left_out():
    scores = np.log(np.array([[0.6, 0.02, 0.08, 0.001, 0.299]], dtype=np.float32))
    config = HintsConfig("labels.tsv", 4, least=0.05, sure=0.5)
    assert Hints(LABELS, config).texts(scores) == ["корги!, палатка, собака"]
    flat = np.zeros((1, len(LABELS)), dtype=np.float32)
    assert Hints(LABELS, HintsConfig("labels.tsv", 4, least=0.9, sure=0.5)).texts(flat) == ["корги; собака"]
