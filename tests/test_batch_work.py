import json
import threading
from itertools import count, islice

import pytest

from rucap.batch.ahead import AT_ONCE, batches, work_ahead
from rucap.batch.items import Item, fill_rows
from rucap.batch.questions import read_questions
from rucap.errors import DataError, ImageError


def test_batches():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


def test_work_is_done_in_order_and_not_far_ahead():
    taken = []
    endless = batches((taken.append(number) or number for number in count()), 4)
    assert list(islice(work_ahead(sum, endless), 3)) == [6, 22, 38]
    assert len(taken) <= 4 * (3 + AT_ONCE)


def test_two_batches_are_worked_on_at_once():
    together = threading.Barrier(AT_ONCE, timeout=10)

    def work(batch):
        together.wait()
        return batch

    assert list(work_ahead(work, batches(range(4), 1))) == [[0], [1], [2], [3]]


def test_an_error_of_work_ends_it():
    def work(batch):
        if batch == [2]:
            raise ImageError("two")
        return batch

    found = work_ahead(work, batches(range(9), 1))
    assert [next(found), next(found)] == [[0], [1]]
    with pytest.raises(ImageError, match="two"):
        next(found)


def test_errors_stand_in_their_rows():
    items = [Item({"image": "a"}, "a"), Item({"image": "b", "error": "gone"}), Item({"image": "c"}, "c")]
    given = []

    def work(good):
        given.extend(item.source for item in good)
        return ["Лес", ImageError("c: damaged")]

    assert fill_rows(items, work, lambda text: {"caption": text}) == [
        {"image": "a", "caption": "Лес"},
        {"image": "b", "error": "gone"},
        {"image": "c", "error": "c: damaged"},
    ]
    assert given == ["a", "c"]


def test_questions(tmp_path):
    path = tmp_path / "q.jsonl"
    lines = [
        {"image": "a.jpg", "question": "Что это?", "id": 7, "error": "of an earlier run", "answer": "лес"},
        {"image": "https://example.org/a.jpg", "question": ""},
        {"image": "a.jpg"},
        [1],
        {"image": str(tmp_path / "b.jpg"), "question": "Где?"},
    ]
    path.write_text("\n".join(["\ufeff" + json.dumps(lines[0]), "", *map(json.dumps, lines[1:]), "{"]), "utf-8")
    found = list(read_questions(path))
    assert found[0] == Item({"image": "a.jpg", "question": "Что это?", "id": 7}, str(tmp_path / "a.jpg"))
    assert found[1] == Item(lines[1], "https://example.org/a.jpg")
    assert found[4].source == str(tmp_path / "b.jpg")
    assert [item.row.get("line") for item in found] == [None, None, 4, 5, None, 7]
    assert all(
        f"q.jsonl:{item.row['line']}: a JSON object" in item.row["error"] for item in found if "line" in item.row
    )
    with pytest.raises(DataError, match="No such file"):
        list(read_questions(tmp_path / "missing.jsonl"))
    path.write_bytes(b" " * (1 << 21))
    with pytest.raises(DataError, match="longer"):
        list(read_questions(path))
