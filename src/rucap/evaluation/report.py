"""One HTML page that shows an evaluation: its tables, then photos with captions, references and scores.

The page holds all it needs, loads and runs nothing, and stays within some megabytes however large the set is.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from rucap.errors import ImageError, OptionError
from rucap.evaluation.results import RIGHT_CAPTION, Evaluation, Prediction, Reply
from rucap.evaluation.table import Table, number, reliability_table, tables
from rucap.evaluation.wording import WORDING, Language
from rucap.images import open_photo

PHOTOS = 300
"""Photos on the page: a third the best, a third the worst, the rest evenly from those between."""
THUMBNAIL = 288
"""Pixels of the longest side."""
JPEG_QUALITY = 72
LONGEST_TEXT = 400
"""Characters of one text on the page."""
MOST_TEXTS = 12
"""References, and questions, of one photo on the page."""


def write_report(
    evaluation: Evaluation, path: str | Path, title: str, language: Language = "ru", photos: int = PHOTOS
) -> None:
    """Writes the page, best captions by CIDEr-D first, then the worst (the worst first), then some of the others.

    A photo that does not open leaves its error in its place. Raises OptionError when the file cannot be written.
    """
    path, say = Path(path), WORDING[language]
    best, worst, between = _choose(evaluation.predictions, photos)
    groups = {key: group for key, group in (("best", best), ("worst", worst), ("between", between)) if group}
    shown = say["shown"].format(shown=sum(map(len, groups.values())), total=len(evaluation.predictions))
    note = [say["note"], say["note_right"].format(threshold=number(RIGHT_CAPTION, language)), shown + "."]
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        language=language,
        title=escape(title),
        contents="".join(f'<a href="#{key}">{escape(say[key])}</a>' for key in groups),
        tables="\n".join(f"<h2>{escape(table.title)}</h2>{_table(table)}" for table in tables(evaluation, language)),
        details="\n".join(
            f"<details><summary>{escape(table.title)}</summary>{_table(table)}</details>"
            for table in _reliability_tables(evaluation, language)
        ),
        note=escape(" ".join(note)),
        sections="\n".join(_section(key, group, language) for key, group in groups.items()),
    )
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(page.encode("utf-8", "replace"))
        partial.replace(path)
    except OSError as error:
        raise OptionError(f"{path}: the report cannot be written: {error.strerror}; choose another file") from None


def _choose(
    predictions: Sequence[Prediction], photos: int
) -> tuple[list[Prediction], list[Prediction], list[Prediction]]:
    ordered = sorted(predictions, key=lambda prediction: -prediction.cider)
    shown = max(0, min(photos, len(ordered)))
    best, worst, between = (shown + 2) // 3, (shown + 1) // 3, shown // 3
    middle = ordered[best : len(ordered) - worst]
    return (
        ordered[:best],
        ordered[len(ordered) - worst :][::-1],
        [middle[index * len(middle) // between] for index in range(between)],
    )


def _reliability_tables(evaluation: Evaluation, language: Language) -> list[Table]:
    found = (
        ("reliability_captions", evaluation.caption_reliability),
        ("reliability_answers", evaluation.answer_reliability),
    )
    return [reliability_table(WORDING[language][key], bins, language) for key, bins in found if bins]


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'


def _section(key: str, predictions: Sequence[Prediction], language: Language) -> str:
    cards = "\n".join(_card(prediction, language) for prediction in predictions)
    return (
        f'<section id="{key}"><h2>{escape(WORDING[language][key])}</h2><div class="cards">\n{cards}\n</div></section>'
    )


def _card(prediction: Prediction, language: Language) -> str:
    say, record = WORDING[language], prediction.record
    badges = [f'<span class="badge{_right(prediction.right)}">CIDEr-D {number(prediction.cider, language)}</span>']
    if prediction.confidence is not None:
        badges.append(f"<small>{escape(say['sure'])} {round(100 * prediction.confidence)} %</small>")
    references = "".join(f"<li>{_text(caption)}</li>" for caption in record.captions[:MOST_TEXTS])
    replies = "".join(_reply(reply, say["right_answer"]) for reply in prediction.replies[:MOST_TEXTS])
    questions = f"<h4>{escape(say['answers'])}</h4><dl>{replies}</dl>" if replies else ""
    return (
        f'<article>{_photo(prediction, say)}<div class="about">'
        f"<h3>{_text(prediction.caption or say['no_caption'])}</h3>{' '.join(badges)}"
        f"<h4>{escape(say['references'])}</h4><ul>{references}</ul>{questions}"
        f"<small>{_text(record.image.name)} · {_text(record.origin)}</small></div></article>"
    )


def _reply(reply: Reply, right_answer: str) -> str:
    answer = _text(reply.answer or "–")
    if not reply.right:
        answer += f" <small>{escape(right_answer)}{_text(reply.question.answer)}</small>"
    return f'<dt>{_text(reply.question.question)}</dt><dd class="answer{_right(reply.right)}">{answer}</dd>'


def _photo(prediction: Prediction, say: dict[str, str]) -> str:
    try:
        data = base64.b64encode(_thumbnail(prediction.record.image)).decode("ascii")
    except ImageError as error:
        return f'<div class="missing">{escape(say["no_photo"])}: {_text(str(error))}</div>'
    return f'<img alt="{_text(prediction.caption)}" src="data:image/jpeg;base64,{data}">'


def _thumbnail(path: Path) -> bytes:
    photo = open_photo(path, target=THUMBNAIL)
    photo.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _right(right: bool) -> str:
    return " right" if right else ""


def _text(text: str) -> str:
    return escape(text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…")
