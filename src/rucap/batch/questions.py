"""Questions about photos from a file of JSON lines, one by one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rucap.batch.formats import LONGEST_RECORD
from rucap.batch.items import Item
from rucap.errors import DataError

_MADE = ("answer", "confidence", "error")
"""Fields that are ours to fill: the output of an earlier run can be asked again."""


def read_questions(path: Path) -> Iterator[Item]:
    """The lines `{"image", "question"}` of a file; other fields are kept, paths start at the file's folder.

    A line of another form gives a row with its number and an error. Raises DataError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_RECORD + 1):
                number += 1
                if len(line) > LONGEST_RECORD:
                    raise DataError(f"{path}:{number}: the line is longer than {LONGEST_RECORD} bytes; check the file")
                if line.strip():
                    yield _item(line, path, number)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def _item(line: bytes, path: Path, number: int) -> Item:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("image", "question")):
        error = f'{path}:{number}: a JSON object with the texts "image" and "question" is expected'
        return Item({"line": number, "error": error})
    image = row["image"]
    is_url = re.match(r"https?://", image, re.IGNORECASE)
    source = image if is_url else os.path.join(path.parent, image)
    return Item({name: value for name, value in row.items() if name not in _MADE}, source)
