"""A file of rows that is written as it goes and that a stopped run goes on with.

A row is known by its `key` fields. Rows that are there already are not made again, but for rows with an `error`: those
are taken out when the file is opened, so that what failed is tried again and every photo has one row. A last record
that a kill left half written is cut off. The rest of the file is never changed, and a file of another kind is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rucap.batch.formats import Format, Row, format_of, records
from rucap.errors import DataError, OptionError

Key = tuple[str, ...]


class OutputFile:
    """Rows in a .jsonl or .csv file; a context manager that closes it."""

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str] = ("image",)) -> None:
        """Opens `path`, or makes it, and reads which rows it has; their keys stay in memory.

        Raises OptionError when it cannot be written or has another ending, DataError when it holds something else.
        """
        self._path, self._format, self._key = path, format_of(path, columns), key
        try:
            self._done, complete, failed = _survey(path, self._format, key) if path.exists() else (set(), 0, False)
            if failed:
                _take_errors_out(path, self._format)
            self._file = path.open("ab")
            if not failed:
                self._file.truncate(complete)
            if not complete:
                self._append(self._format.header)
        except OSError as error:
            raise _unwritable(path, error) from None

    def __contains__(self, row: Row) -> bool:
        """Whether an earlier run wrote a row of the same key."""
        return _key_of(row, self._key) in self._done

    def write(self, rows: Iterable[Row]) -> None:
        """Appends rows. They are with the operating system when this returns: a kill cannot lose them.

        Raises OptionError when they cannot be written, say because the disk is full.
        """
        try:
            self._append(b"".join(map(self._format.encode, rows)))
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _survey(path: Path, form: Format, key: Sequence[str]) -> tuple[set[Key], int, bool]:
    """The keys of rows without an error, the bytes of all complete records, and whether any row has an error."""
    done: set[Key] = set()
    complete, failed = 0, False
    with path.open("rb") as file:
        start = file.read(len(form.begins))
        if not form.begins.startswith(start):
            raise DataError(f"{path}: not a file that rucap wrote with these options; choose another file")
        file.seek(0)
        try:
            for record in records(file, form):
                row = {} if record == form.header else form.decode(record)
                complete += len(record)
                if "error" in row:
                    failed = True
                elif row:
                    done.add(_key_of(row, key))
        except ValueError as error:
            raise DataError(
                f"{path}: after {complete} bytes no row of rucap's ({error}); choose another file"
            ) from None
    return done, complete, failed


def _take_errors_out(path: Path, form: Format) -> None:
    partial = path.with_name(path.name + ".part")
    with path.open("rb") as file, partial.open("wb") as kept:
        for record in records(file, form):
            if record == form.header or "error" not in form.decode(record):
                kept.write(record)
    os.replace(partial, path)


def _unwritable(path: Path, error: OSError) -> OptionError:
    return OptionError(f"{path}: cannot be written ({error.strerror}); choose another file")


def _key_of(row: Row, key: Sequence[str]) -> Key:
    return tuple(str(row.get(name, "")) for name in key)
