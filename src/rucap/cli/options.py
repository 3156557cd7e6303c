"""Options that several commands share, as decorators, and what they say to the layers below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rucap.cli.messages import say
from rucap.errors import RucapError

if TYPE_CHECKING:
    from rucap.captioner import Captioner

Function = TypeVar("Function", bound=Callable[..., Any])

COUNT = click.IntRange(min=1)
SHARE = click.FloatRange(0, 1)


def photos_argument(function: Function) -> Function:
    """The photos: files, folders, patterns, URLs."""
    return click.argument("photos", nargs=-1, required=True, metavar=say("metavar.photos"))(function)


def model_options(function: Function) -> Function:
    """Which model, and how it runs."""
    return _all(
        function,
        option("--model", "model", default="tiny", show_default=True, metavar=say("metavar.model")),
        option("--precision", "precision", type=click.Choice(["int8", "float32"])),
        option("--threads", "threads", type=COUNT, metavar="N"),
    )


def writing_options(function: Function) -> Function:
    """How texts are written."""
    return _all(
        function,
        option("--beams", "beams", type=COUNT, metavar="N"),
        option("--min-words", "min_words", type=COUNT, metavar="N"),
        option("--max-words", "max_words", type=COUNT, metavar="N"),
        option("--ban", "banned", multiple=True, metavar=say("metavar.text")),
        option("--temperature", "temperature", type=float, metavar="T"),
        option("--top-p", "top_p", type=float, metavar="P"),
        option("--top-k", "top_k", type=COUNT, metavar="K"),
        option("--seed", "seed", type=click.IntRange(min=0), metavar="N"),
        option("--stop", "stop", type=click.Choice(["sentence", "original"])),
    )


def output_options(function: Function) -> Function:
    """Where rows go."""
    return _all(
        function,
        option("--min-confidence", "least", type=SHARE, metavar="X"),
        option("--json", "as_json", is_flag=True),
        option("--output", "output", type=click.Path(path_type=Path), metavar=say("metavar.output")),
    )


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave: all others are left to the model's own defaults."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def open_captioner(model: str, precision: Any, threads: int | None) -> Captioner:  # noqa: ANN401
    """The model. Raises ModelError, OptionError."""
    from rucap.captioner import Captioner

    # Threads that wait busily take their cores from those that load photos, and from whatever else the machine does.
    return Captioner(model, precision=precision, threads=threads, spin=False)


@contextmanager
def workshop() -> Iterator[None]:
    """Around what needs the `train` extra: a package that is missing becomes one line that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "rucap":
            raise
        raise RucapError(say("extra", name=name)) from None


def option(*flags: str, **settings: Any) -> Callable[[Function], Function]:  # noqa: ANN401
    """click's option, whose help is the text `option.NAME`; NAME is the last of the `flags`."""
    return click.option(*flags, help=say(f"option.{flags[-1]}"), **settings)


def _all(function: Function, *decorators: Callable[[Function], Function]) -> Function:
    for decorate in reversed(decorators):
        function = decorate(function)
    return function
