from __future__ import annotations

import json
from pathlib import Path

import pytest

from rucap.data.records import LONGEST_LINE, Question, Record, read_records
from rucap.errors import DataError


def write(folder: Path, *lines: object) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_reads_the_full_form(tmp_path: Path) -> None:
    line = {
        "image": "photos/a.jpg",
        "split": "dev",
        "captions": ["Кот", " Кот спит "],
        "captions_en": ["A cat"],
        "questions": [{"question": "Кто это?", "answer": "кот"}],
        "origin": "unsplash",
    }
    (record,) = read_records(write(tmp_path, line))
    assert record == Record(
        tmp_path / "photos/a.jpg", "dev", ("Кот", "Кот спит"), (Question("Кто это?", "кот"),), "unsplash"
    )


def test_reads_the_short_form_with_defaults(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path, {"image": "a.jpg", "caption": "Синяя чашка"}))
    assert record == Record(tmp_path / "a.jpg", "train", ("Синяя чашка",), (), "mine")


def test_keeps_the_order_and_only_the_split(tmp_path: Path) -> None:
    lines = [{"image": f"{i}.jpg", "caption": "Кот", "split": "dev" if i % 2 else "train"} for i in range(5)]
    path = write(tmp_path, *lines)
    assert [r.image.name for r in read_records(path, "train")] == ["0.jpg", "2.jpg", "4.jpg"]
    assert len(read_records(path)) == 5
    assert read_records(path, "test") == []


def test_skips_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"image": "a.jpg", "caption": "Кот"}\r\n\n'.encode())
    assert [r.captions for r in read_records(path)] == [("Кот",)]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({"caption": "Кот"}, "'image'"),
        ({"image": "a.jpg"}, "'captions'"),
        ({"image": "a.jpg", "caption": "Кот", "captions": ["Кот"]}, "'captions'"),
        ({"image": "a.jpg", "captions": []}, "'captions'"),
        ({"image": "a.jpg", "captions": ["Кот", " "]}, "'captions'"),
        ({"image": "a.jpg", "captions": "Кот"}, "'captions'"),
        ({"image": "a.jpg", "caption": 3}, "'caption'"),
        ({"image": "a.jpg", "caption": "Кот", "split": None}, "'split'"),
        ({"image": "a.jpg", "caption": "Кот", "questions": {"question": "Кто?"}}, "'questions'"),
        ({"image": "a.jpg", "caption": "Кот", "questions": [{"question": "Кто?"}]}, "'answer'"),
        (["a.jpg", "Кот"], "list"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, line: object, named: str) -> None:
    path = write(tmp_path, {"image": "good.jpg", "caption": "Кот"}, line)
    with pytest.raises(DataError, match=named) as caught:
        read_records(path, "train")
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b'{"image": "a.jpg", "caption', b'{"image": "\xff.jpg", "caption": "a"}', b"[" * 99999]
)
def test_broken_lines(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.jsonl:1: not a JSON object"):
        read_records(path)


def test_an_endless_line_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b" " * (LONGEST_LINE + 2))
    with pytest.raises(DataError, match="longer than"):
        read_records(path)


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_records(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="holds no records"):
        read_records(tmp_path / "empty.jsonl")
