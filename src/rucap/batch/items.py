"""What there is to do, and doing a batch of it: an error stands in the row of its photo, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rucap.batch.formats import Row
from rucap.errors import RucapError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Item:
    """A photo to do something with."""

    row: Row
    """What its row holds already: how the photo is called, or an `error` where there is nothing to open."""
    source: str = ""
    """The path or URL to open."""


def fill_rows(
    items: Sequence[Item],
    work: Callable[[list[Item]], Sequence[Result | RucapError]],
    fields: Callable[[Result], Row],
) -> list[Row]:
    """The items' rows, with the `fields` of what `work` makes of those that have no error yet."""
    results = iter(work([item for item in items if "error" not in item.row]))
    rows = []
    for item in items:
        if "error" not in item.row:
            result = next(results)
            added = {"error": str(result)} if isinstance(result, RucapError) else fields(result)
            rows.append(item.row | added)
        else:
            rows.append(item.row)
    return rows
