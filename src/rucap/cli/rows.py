"""Rows on their way to a person, a pipe or a file, and the loop that makes them."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from rucap.batch.ahead import batches, work_ahead
from rucap.batch.formats import Row, json_line
from rucap.batch.items import Item
from rucap.batch.output import OutputFile
from rucap.cli.messages import say, translated

BATCH = 16
"""Photos worked on and written at once: more gain nothing, and a slow model would show nothing for long."""
FEW = 5
"""With more photos than that a terminal shows how far the work is."""


class Sink(Protocol):
    """Where rows go."""

    def __contains__(self, row: Row) -> bool:
        """Whether such a row is there from an earlier run."""
        ...

    def write(self, rows: Iterable[Row]) -> None:
        """Takes rows, in order."""
        ...


class Lines:
    """Rows as lines on standard output."""

    def __init__(self, line: Callable[[Row], str]) -> None:
        """`line` makes a row's line (or lines) of it."""
        self._line = line

    def __contains__(self, row: Row) -> bool:
        return False

    def write(self, rows: Iterable[Row]) -> None:
        """Prints; a reader of the pipe has the lines at once."""
        for row in rows:
            print(self._line(row))
        sys.stdout.flush()


class Person(Lines):
    """Rows for a person to read: what failed is said on standard error."""

    def write(self, rows: Iterable[Row]) -> None:
        """Prints each row in its turn."""
        for row in rows:
            if "error" in row:
                print(say("error", message=translated(row["error"])), file=sys.stderr)
            else:
                print(self._line(row))


def open_sink(
    as_json: bool,
    output: Path | None,
    columns: Sequence[str],
    line: Callable[[Row], str],
    key: Sequence[str] = ("image",),
) -> AbstractContextManager[Sink]:
    """Rows go to the file `output` where there is one, to a person as `line`s, or as JSON lines into a pipe."""
    if output is not None:
        return OutputFile(output, (*columns, "error"), key)
    person = not as_json and sys.stdout.isatty()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # JSON is UTF-8 wherever it runs; a terminal that lacks a letter shows a stand-in.
        sys.stdout.reconfigure(encoding=None if person else "utf-8", errors="replace")
    return nullcontext(Person(line) if person else Lines(json_line))


def process(
    items: Callable[[], Iterator[Item]], work: Callable[[list[Item]], list[Row]], sink: Sink, output: Path | None
) -> int:
    """Works on the items that the sink lacks, and returns the exit code: 1 where a row has an error.

    `items` starts the items from the beginning each time it is called; they are counted while the work goes on.
    """
    failed = written = there = 0
    all_items = items()
    first = list(islice(all_items, FEW + 1))

    def wanted() -> Iterator[Item]:
        nonlocal there
        for item in chain(first, all_items):
            if item.row in sink:
                there += 1
            else:
                yield item

    with _bar(items) if len(first) > FEW and sys.stderr.isatty() else nullcontext(_no_bar) as show:
        for rows in work_ahead(work, batches(wanted(), BATCH)):
            sink.write(rows)
            written += len(rows)
            failed += sum("error" in row for row in rows)
            show(written, there)
    if output is not None:
        counts = {"written": written, "failed": failed, "there": there}
        print(say("rows.there" if there else "rows.written", output=output, **counts), file=sys.stderr)
    return int(failed > 0)


def _no_bar(written: int, there: int) -> None:
    """Takes the numbers of rows and shows nothing."""


@contextmanager
def _bar(items: Callable[[], Iterator[Item]]) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, above which a person's rows go by; how many items there are is found out meanwhile."""
    from threading import Thread

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"), TimeRemainingColumn())
    # rich would send the lines for a pipe to the terminal, too.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=None, pace="")
        counting = Thread(target=lambda: bar.update(task, total=sum(1 for _ in items())), daemon=True)
        counting.start()

        def show(written: int, there: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            pace = say("progress.pace", pace=f"{written / elapsed:.1f}") if elapsed > 1 else ""
            bar.update(task, completed=written + there, pace=pace)

        yield show
