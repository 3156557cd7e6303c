"""What the command line says, in the reader's language. The texts are data: texts/*.json."""

from __future__ import annotations

import gettext
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

Language = Literal["ru", "en"]


@cache
def language() -> Language:
    """Russian where the locale is: the first of LC_ALL, LC_MESSAGES and LANG that is set says so, as POSIX has it."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "ru" if value.lower().startswith("ru") else "en"
    return "en"


def say(key: str, **values: object) -> str:
    """The text of that key, filled in."""
    return _texts(language())[key].format(**values)


def translate_click() -> None:
    """Gives click's own texts ("Usage", "No such option") the reader's language; to be called before it is imported.

    click asks gettext for them, and gettext wants a compiled catalogue in a binary file; a table does as well.
    """
    if language() == "en":
        return
    table = _texts("click.ru")

    def translate(message: str) -> str:
        return table.get(message, message)

    def translate_plural(msgid1: str, msgid2: str, n: int) -> str:
        return translate(msgid1 if n == 1 else msgid2)

    gettext.gettext, gettext.ngettext = translate, translate_plural


def translated(error: str) -> str:
    """An error of the layers below, which speak English, in the reader's language; as it is where no text fits."""
    if language() == "en":
        return error
    for template, text in _templates():
        if found := template.fullmatch(error):
            return text.format(**found.groupdict())
    return error


@cache
def _texts(name: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads((Path(__file__).parent / "texts" / f"{name}.json").read_text(encoding="utf-8"))
    return texts


@cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """`{name}: no such file` as a pattern that finds the name, with the Russian text that takes it."""
    return [(_pattern(english), russian) for english, russian in _texts("errors.ru").items()]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{part}>.+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)))
