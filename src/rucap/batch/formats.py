"""Rows as bytes of a file and back: JSON lines and CSV. A row is a dict of plain values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rucap.errors import OptionError

Row = dict[str, Any]

LONGEST_RECORD = 1 << 20
"""Bytes; what is longer is not a row of ours."""


@dataclass(frozen=True)
class Format:
    """How one kind of file holds rows."""

    header: bytes
    """The first record, which is no row; may be empty."""
    begins: bytes
    """What every file of the kind begins with."""
    encode: Callable[[Row], bytes]
    """A row as a record: a line, or several where a quoted CSV field has line breaks."""
    decode: Callable[[bytes], Row]
    """A complete record as a row; ValueError for one of another form."""


def format_of(path: Path, columns: Sequence[str]) -> Format:
    """The format by the file's ending; CSV holds `columns`. Raises OptionError for another ending."""
    if path.suffix == ".jsonl":
        return Format(b"", b'{"', lambda row: json_line(row).encode() + b"\n", _decode_json)
    if path.suffix == ".csv":
        header = _csv_record(columns)
        return Format(
            header,
            header,
            lambda row: _csv_record([_cell(row.get(column)) for column in columns]),
            lambda record: _decode_csv(record, columns),
        )
    raise OptionError(f"{path}: the output is a .jsonl or a .csv file; name it so")


def json_line(row: Row | list[Any]) -> str:
    """One line of JSON without the line's end; file names that are not UTF-8 are escaped and come back as they were."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def records(file: BinaryIO, form: Format) -> Iterator[bytes]:
    """The complete records, header included, without what a kill left behind them. ValueError past LONGEST_RECORD."""
    record, open_quote = b"", False
    while line := file.readline(LONGEST_RECORD + 1):
        record += line
        if len(record) > LONGEST_RECORD:
            raise ValueError("a record is too long")
        open_quote ^= bool(form.header) and line.count(b'"') % 2 == 1
        if line.endswith(b"\n") and not open_quote:
            yield record
            record = b""


def _decode_json(record: bytes) -> Row:
    row = json.loads(record)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    return row


def _csv_record(cells: Sequence[object]) -> bytes:
    buffer = io.StringIO()
    # Every text is quoted, so that no character of a file's name can end a field or a line.
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _cell(value: object) -> object:
    return json_line(value) if isinstance(value, list | dict) else value


def _decode_csv(record: bytes, columns: Sequence[str]) -> Row:
    rows = list(csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")))
    if len(rows) != 1 or len(rows[0]) != len(columns):
        raise ValueError("other columns")
    return {column: cell for column, cell in zip(columns, rows[0], strict=True) if cell}
