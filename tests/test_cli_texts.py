"""The texts: complete in both languages, and the Russian of errors in step with what the layers below raise."""

import ast
import json
import os
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

import rucap
from rucap.cli import messages

SOURCES = Path(rucap.__file__).parent
TEXTS = {path.stem: json.loads(path.read_text("utf-8")) for path in (SOURCES / "cli" / "texts").glob("*.json")}
USERS_MEET = (
    "batch/*.py",
    "images/download.py",
    "images/photo.py",
    "model/sentence.py",
    "data/records.py",
    "writing.py",
)
"""Whose every error must have a Russian text."""


def fields(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def raised(path):
    """The texts of the errors that a file raises or puts into rows, with what is filled in as {}."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_error(text):
    return re.match(r"^\{\}(:\{\})?: .*[;:] ", text) is not None


@pytest.fixture
def russian(monkeypatch):
    monkeypatch.setattr(messages, "language", lambda: "ru")


def test_both_languages_say_the_same():
    assert list(TEXTS["en"]) == list(TEXTS["ru"])
    for key, text in TEXTS["en"].items():
        assert fields(text) == fields(TEXTS["ru"][key]), key
        if not key.startswith(("metavar.", "progress.")):
            assert re.search("[а-я]", TEXTS["ru"][key]), key


def test_every_text_is_used_and_every_used_one_is_there():
    code = "\n".join(path.read_text("utf-8") for path in (SOURCES / "cli").glob("*.py"))
    used = set(re.findall(r'"([a-z]+(?:\.[a-z_]+)?)"', code)) & set(TEXTS["en"])
    used |= {f"option.{name}" for name in re.findall(r'\boption\((?:"-[^"]+", )+"(\w+)"', code)}
    assert used == set(TEXTS["en"])


def test_click_says_these_texts():
    import click

    code = "\n".join(path.read_text("utf-8") for path in Path(click.__file__).parent.glob("*.py"))
    said = "".join(part for part in re.findall(r'"((?:[^"\\\n]|\\.)*)"', code))
    older = {"No such option: {name}", "(Possible options: {possibilities})"}  # click 8.1's
    for english, text in TEXTS["click.ru"].items():
        assert english in older or english.replace("\n", "\\n").replace("\t", "\\t") in said, english
        assert set(fields(text)) <= set(fields(english))


@pytest.mark.parametrize("pattern", USERS_MEET)
def test_errors_that_users_meet_are_translated(russian, pattern):
    for path in SOURCES.glob(pattern):
        for text in filter(is_error, raised(path)):
            error = text.replace("{}", "X1")
            assert messages.translated(error) != error, f"{path}: {text}"


def test_what_has_no_onnx_export_is_said_in_russian(russian):
    for path in (SOURCES / "export").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "NoExportError":
                parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args
                error = "".join(part.value if isinstance(part, ast.Constant) else "X1" for part in parts)
                assert messages.translated(error) != error, f"{path}: {error}"


def test_no_translation_is_left_over():
    said = {text for path in SOURCES.rglob("*.py") for text in raised(path)}
    said |= {f"{{}}: {text}" for text in said}  # reasons that get their name elsewhere
    for template in TEXTS["errors.ru"]:
        plain = re.sub(r"\{\w+\}", "{}", template)
        assert plain in said or template in said, template


def test_what_is_filled_in_is_kept(russian):
    error = "фото: 1; a.jpg: 9 x 8 is more than 50 pixels; make it smaller or raise the limit"
    assert messages.translated(error) == "фото: 1; a.jpg: 9 x 8 — это больше 50 пикселей; уменьшите фото"
    assert messages.translated("something else") == "something else"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "ru_RU.UTF-8"}, "ru"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ru_RU.UTF-8"}, "ru"),
        ({"LANG": "ru_RU.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "ru_RU.UTF-8", "LC_ALL": ""}, "ru"),
        ({}, "en"),
    ],
)
def test_language_is_the_locale_s(monkeypatch, environment, expected):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert messages.language.__wrapped__() == expected


@pytest.mark.parametrize("command", ["", "caption", "ask", "classify", "models", "train", "evaluate", "export", "push"])
def test_help_is_all_in_russian(command):
    code = "import sys; from rucap.cli import main; sys.argv[0] = 'rucap'; main()"
    environment = {**os.environ, "LC_ALL": "ru_RU.UTF-8", "PYTHONIOENCODING": "utf-8"}
    arguments = [sys.executable, "-c", code, *command.split(), "--help"]
    shown = subprocess.run(arguments, env=environment, capture_output=True, check=True).stdout.decode("utf-8")
    assert "Использование:" in shown and "Показать эту справку и выйти." in shown
    english = re.findall(r"\b(?:the|and|show|usage|options|default|required|write|of)\b", shown, re.IGNORECASE)
    assert english == []
