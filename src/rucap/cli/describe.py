"""`rucap caption`, `rucap ask` and `rucap classify`: photos in, rows out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rucap.cli.messages import say
from rucap.cli.options import (
    COUNT,
    given,
    model_options,
    open_captioner,
    option,
    output_options,
    photos_argument,
    writing_options,
)

if TYPE_CHECKING:
    from rucap.batch.formats import Row
    from rucap.batch.items import Item
    from rucap.model.config import Calibration
    from rucap.results import Answer, Caption, Ranking


@click.command(help=say("caption"), options_metavar=say("metavar.options"))
@photos_argument
@option("-n", "--num-captions", "num_captions", type=COUNT, metavar="N")
@option("--detail", "detail", type=click.Choice(["short", "normal", "detailed"]))
@option("--begin", "begin", metavar=say("metavar.text"))
@writing_options
@option("--recursive/--no-recursive", "recursive", default=True)
@output_options
@model_options
def caption(
    photos: tuple[str, ...],
    recursive: bool,
    least: float | None,
    as_json: bool,
    output: Path | None,
    model: str,
    precision: str | None,
    threads: int | None,
    **options: Any,  # noqa: ANN401
) -> int:
    """Captions photos."""
    from rucap.batch.items import fill_rows
    from rucap.batch.names import find_photos
    from rucap.cli.rows import open_sink, process

    options = given(options)
    captioner = open_captioner(model, precision, threads)
    _check_least(least, captioner.config.caption_calibration)
    captioner.caption([], **options)  # options without meaning come to light before anything is written

    def describe(items: list[Item]) -> list[Row]:
        return fill_rows(
            items,
            lambda good: captioner.caption([item.source for item in good], errors="return", **options),
            partial(_caption_fields, least=least),
        )

    alternatives = ("alternatives",) if options.get("num_captions", 1) > 1 else ()
    columns = ("image", "caption", "confidence", *alternatives)
    with open_sink(as_json, output, columns, partial(_caption_line, named=_several(photos))) as sink:
        return process(lambda: find_photos(photos, recursive), describe, sink, output)


@click.command(help=say("ask"), options_metavar=say("metavar.options"))
@click.argument("photo", required=False, metavar=say("metavar.photo"))
@click.argument("question", required=False, metavar=say("metavar.question"))
@option("--from", "questions", type=click.Path(path_type=Path), metavar=say("metavar.questions"))
@writing_options
@output_options
@model_options
def ask(
    photo: str | None,
    question: str | None,
    questions: Path | None,
    least: float | None,
    as_json: bool,
    output: Path | None,
    model: str,
    precision: str | None,
    threads: int | None,
    **options: Any,  # noqa: ANN401
) -> int:
    """Answers questions about photos."""
    if (photo is None or question is None) if questions is None else photo is not None:
        raise click.UsageError(say("ask.usage"))
    from rucap.batch.items import Item, fill_rows
    from rucap.batch.questions import read_questions
    from rucap.cli.rows import open_sink, process

    options = given(options)
    captioner = open_captioner(model, precision, threads)
    _check_least(least, captioner.config.answer_calibration)
    captioner.answer([], [], **options)

    def reply(items: list[Item]) -> list[Row]:
        return fill_rows(
            items,
            lambda good: captioner.answer(
                [item.source for item in good], [item.row["question"] for item in good], errors="return", **options
            ),
            partial(_answer_fields, least=least),
        )

    one = Item({"image": photo, "question": question}, photo or "")
    columns, key = ("image", "question", "answer", "confidence"), ("image", "question")
    with open_sink(as_json, output, columns, partial(_answer_line, named=questions is not None), key) as sink:
        return process(lambda: read_questions(questions) if questions else iter([one]), reply, sink, output)


@click.command(help=say("classify"), options_metavar=say("metavar.options"))
@photos_argument
@option("--label", "labels", multiple=True, required=True, metavar=say("metavar.text"))
@option("--form", "form", default="{label}", show_default=True, metavar=say("metavar.text"))
@option("--method", "method", type=click.Choice(["similarity", "likelihood"]))
@option("--recursive/--no-recursive", "recursive", default=True)
@option("--json", "as_json", is_flag=True)
@option("--output", "output", type=click.Path(path_type=Path), metavar=say("metavar.output"))
@model_options
def classify(
    photos: tuple[str, ...],
    labels: tuple[str, ...],
    form: str,
    method: Literal["similarity", "likelihood"] | None,
    recursive: bool,
    as_json: bool,
    output: Path | None,
    model: str,
    precision: str | None,
    threads: int | None,
) -> int:
    """Ranks labels for photos."""
    from rucap.batch.items import fill_rows
    from rucap.batch.names import find_photos
    from rucap.cli.rows import open_sink, process

    captioner = open_captioner(model, precision, threads)
    captioner.classify([], labels, form=form, method=method)

    def rank(items: list[Item]) -> list[Row]:
        return fill_rows(
            items,
            lambda good: captioner.classify(
                [item.source for item in good], labels, form=form, method=method, errors="return"
            ),
            _ranking_fields,
        )

    with open_sink(
        as_json, output, ("image", "label", "probability"), partial(_ranking_line, named=_several(photos))
    ) as sink:
        return process(lambda: find_photos(photos, recursive), rank, sink, output)


def _check_least(least: float | None, calibration: Calibration | None) -> None:
    if least is not None and calibration is None:
        raise click.UsageError(say("least.uncalibrated"))


def _several(photos: tuple[str, ...]) -> bool:
    """Whether a person must be told which photo a line is about."""
    return len(photos) > 1 or not Path(photos[0]).is_file()


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 4)


def _sure(text: str, confidence: float | None, least: float | None) -> str | None:
    """The text, or None where the model is less sure of it than asked."""
    return None if least is not None and confidence is not None and confidence < least else text


def _caption_fields(caption: Caption, least: float | None) -> Row:
    texts = [
        {"caption": _sure(each.text, each.confidence, least), "confidence": _rounded(each.confidence)}
        for each in (caption, *caption.alternatives)
    ]
    return texts[0] | ({"alternatives": texts[1:]} if len(texts) > 1 else {})


def _answer_fields(answer: Answer, least: float | None) -> Row:
    return {
        "answer": _sure(answer.text, answer.confidence, least),
        "confidence": _rounded(answer.confidence),
    }


def _ranking_fields(ranking: Ranking) -> Row:
    labels = [{"label": label.name, "probability": round(label.probability, 4)} for label in ranking.labels]
    return labels[0] | {"labels": labels}


def _caption_line(row: Row, named: bool) -> str:
    texts = [_or_unsure(each["caption"], each["confidence"]) for each in (row, *row.get("alternatives", ()))]
    return _named(row, named, texts)


def _answer_line(row: Row, named: bool) -> str:
    answer = _or_unsure(row["answer"], row["confidence"])
    return f"{row['image']}: {row['question']} {answer}" if named else answer


def _ranking_line(row: Row, named: bool) -> str:
    return _named(row, named, [f"{100 * each['probability']:3.0f} % {each['label']}" for each in row["labels"]])


def _named(row: Row, named: bool, texts: list[str]) -> str:
    if not named:
        return "\n".join(texts)
    if len(texts) == 1:
        return f"{row['image']}: {texts[0]}"
    return "\n".join([f"{row['image']}:", *(f"  {text}" for text in texts)])


def _or_unsure(text: str | None, confidence: float | None) -> str:
    return say("unsure", percent=round(100 * (confidence or 0))) if text is None else text
