"""Results as tables of text: for a terminal, a pipe or a README."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucap.evaluation.calibration import Reliability
from rucap.evaluation.results import Evaluation
from rucap.evaluation.wording import WORDING, Language

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row, all others hold numbers and the like."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(evaluation: Evaluation, language: Language = "ru") -> list[Table]:
    """The tables of an evaluation: captions, then answers and confidence where it has them."""
    parts = (_captions(evaluation, language), _answers(evaluation, language), _confidence(evaluation, language))
    return [table for table in parts if table.rows]


def reliability_table(title: str, reliability: Reliability, language: Language = "ru") -> Table:
    """Confidence against the share of right ones, by bin; empty bins are left out."""
    say = WORDING[language]
    rows = tuple(
        (
            f"{round(100 * row.low)}–{round(100 * row.high)} %",
            str(row.count),
            number(100 * row.confidence, language),
            number(100 * row.right, language),
        )
        for row in reliability.bins
        if row.count
    )
    return Table(title, tuple(say[key] for key in ("range", "count", "mean_confidence", "right")), rows)


def number(value: float | None, language: Language) -> str:
    """One digit after the point, or after the comma in Russian; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.1f}".replace(".", "," if language == "ru" else ".")


def as_text(table: Table) -> str:
    """Aligned columns under the title, for a pipe or a log."""
    return "\n".join((table.title, *("  ".join(line) for line in _padded(table))))


def as_markdown(table: Table) -> str:
    """A markdown table, aligned as text too; the title is left to the reader's heading."""
    header, *rows = ([cell.replace("|", "\\|") for cell in line] for line in (table.header, *table.rows))
    escaped = Table(table.title, tuple(header), tuple(map(tuple, rows)))
    first, *rest = ("| " + " | ".join(line) + " |" for line in _padded(escaped))
    widths = [max(map(len, column)) for column in zip(escaped.header, *escaped.rows, strict=True)]
    ruler = "|".join(
        (":" + "-" * (width + 1)) if index == 0 else ("-" * (width + 1) + ":") for index, width in enumerate(widths)
    )
    return "\n".join((first, f"|{ruler}|", *rest))


def as_rich(table: Table) -> rich.table.Table:
    """For a terminal, through rich."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(table.header):
        shown.add_column(Text(name), justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


def _padded(table: Table) -> list[list[str]]:
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]


def _captions(evaluation: Evaluation, language: Language) -> Table:
    say = WORDING[language]
    scores = ("CIDEr-D", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "chrF", "ROUGE-1", "ROUGE-2", "ROUGE-L")
    header = (say["writer"], say["photos"], *scores, say["words"], say["novel"], say["vocabulary"])
    rows = []
    for row in evaluation.captions:
        s = row.scores
        values = (s.cider, s.bleu1, s.bleu2, s.bleu3, s.bleu4, s.chrf, s.rouge1, s.rouge2, s.rouge_l, s.words, s.novel)
        cells = (number(value, language) for value in values)
        rows.append((say[row.writer], str(s.photos), *cells, str(s.vocabulary)))
    return Table(say["captions"], header, tuple(rows))


def _answers(evaluation: Evaluation, language: Language) -> Table:
    say = WORDING[language]
    keys = ("kind", "questions", "exact")
    header = (*(say[key] for key in keys), "F1", *(say[key] for key in ("majority", "majority_exact", "majority_f1")))
    rows = []
    for row in evaluation.answers:
        majority = row.majority_scores
        values = (row.scores.exact, row.scores.f1)
        baseline = (majority.exact, majority.f1) if majority else (None, None)
        rows.append(
            (
                say[row.kind],
                str(row.scores.questions),
                *(number(value, language) for value in values),
                row.majority or "–",
                *(number(value, language) for value in baseline),
            )
        )
    return Table(say["answers"], header, tuple(rows))


def _confidence(evaluation: Evaluation, language: Language) -> Table:
    say = WORDING[language]
    header = tuple(say[key] for key in ("what", "count", "right", "mean_confidence", "calibration_error", "auroc"))
    rows = []
    for key, found in (("captions", evaluation.caption_reliability), ("answers", evaluation.answer_reliability)):
        if found:
            shares = (found.right, found.confidence, found.calibration_error, found.auroc)
            cells = (number(None if share is None else 100 * share, language) for share in shares)
            rows.append((say[key].lower(), str(found.count), *cells))
    return Table(say["confidence"], header, tuple(rows))
