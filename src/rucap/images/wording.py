"""Strangers' text in our error messages: names of files and what other libraries say. One line, safe for a terminal."""

from __future__ import annotations

_LONGEST_DETAIL = 200


def printable(name: str) -> str:
    """`name` with line breaks, control characters and bytes that are not text escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def detail(cause: object) -> str:
    """What `cause`, an exception or its reason, says, cut to a length that fits a line; else the name of its class."""
    text = printable(" ".join(str(cause).split())) or type(cause).__name__
    return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "..."
