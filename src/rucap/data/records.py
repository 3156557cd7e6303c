"""Reads a data set: a jsonl file, one photo with its captions and questions a line.

A line is `{"image", "captions": [...], "split", "questions": [{"question", "answer"}, ...], "origin"}`, or in its short
form, for one's own photos, `{"image", "caption"}`. `split` is "train" unless given, `questions` may be absent, `origin`
(where the photo is from) is the file's name without its ending unless given, and other fields are ignored. Photos are
not opened here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rucap.errors import DataError

LONGEST_LINE = 1 << 20
"""Bytes; a longer line is a file of another kind, not a photo with captions."""


@dataclass(frozen=True)
class Question:
    """A question about a photo and its right answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Record:
    """A photo with at least one reference caption."""

    image: Path
    """The path in the file, joined to the file's folder."""
    split: str
    captions: tuple[str, ...]
    questions: tuple[Question, ...] = ()
    origin: str = ""


def read_records(path: str | Path, split: str | None = None) -> list[Record]:
    """Reads the records of `split` (None: of all splits) in the file's order; a split that is not there gives [].

    Raises DataError naming the file, and the line at fault, when the file cannot be read, holds no record or has a
    line of another form; lines of other splits are checked too.
    """
    path = Path(path)
    try:
        records = [_record(line, path, where) for where, line in _lines(path)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; a data set is a jsonl file") from None
    if not records:
        raise DataError(f"{path}: holds no records; put one JSON object a line into it")
    return [record for record in records if split is None or record.split == split]


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > LONGEST_LINE:
                raise DataError(f"{where}: the line is longer than {LONGEST_LINE} bytes; a line holds one photo")
            if line.strip():
                yield where, line


def _record(line: bytes, path: Path, where: str) -> Record:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a JSON object in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{where}: a JSON object is expected, not {type(values).__name__}")
    return Record(
        image=path.parent / _text(values, "image", where),
        split=_text(values, "split", where, default="train"),
        captions=_captions(values, where),
        questions=_questions(values, where),
        origin=_text(values, "origin", where, default=path.stem),
    )


def _captions(values: dict[str, Any], where: str) -> tuple[str, ...]:
    if ("caption" in values) == ("captions" in values):
        raise DataError(f"{where}: exactly one of the fields 'captions' (a list) and 'caption' (a text) is expected")
    if "caption" in values:
        return (_text(values, "caption", where),)
    captions = values["captions"]
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) and c.strip() for c in captions):
        raise DataError(f"{where}: 'captions' is not a list of one or more texts, none of them empty")
    return tuple(caption.strip() for caption in captions)


def _questions(values: dict[str, Any], where: str) -> tuple[Question, ...]:
    questions = values.get("questions", [])
    if not isinstance(questions, list) or not all(isinstance(q, dict) for q in questions):
        raise DataError(f"{where}: 'questions' is not a list of objects with 'question' and 'answer'")
    return tuple(Question(_text(q, "question", where), _text(q, "answer", where)) for q in questions)


def _text(values: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = values.get(name, default)
    if not isinstance(value, str) or not value.strip():
        fault = "missing" if value is None and name not in values else "not a text, or an empty one"
        raise DataError(f"{where}: the field {name!r} is {fault}")
    return value.strip()
