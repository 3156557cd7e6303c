from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from rucap.data.records import Question, Record
from rucap.errors import OptionError
from rucap.evaluation.calibration import reliability
from rucap.evaluation.metrics import AnswerScores, caption_scores
from rucap.evaluation.report import LONGEST_TEXT, THUMBNAIL, write_report
from rucap.evaluation.results import AnswerRow, CaptionRow, Evaluation, Prediction, Reply
from rucap.evaluation.table import Table, as_markdown, as_rich, as_text, reliability_table, tables
from rucap.evaluation.wording import WORDING

HOSTILE = "<script>alert('&')</script> $title ${note} \" onerror=x"


def evaluation(folder: Path, ciders: list[float], caption: str = "Кот спит") -> Evaluation:
    predictions = []
    for index, cider in enumerate(ciders):
        image = folder / f"{index}.png"
        Image.new("RGB", (900, 600), (index * 7 % 256, 90, 160)).save(image)
        replies = (Reply(Question("Кто это?", "кот"), "кот", 0.8), Reply(Question("Он спит?", "да"), "нет", 0.4))
        record = Record(image, "test", (f"Подпись {index}", "Рыжий кот"), origin="мои")
        predictions.append(Prediction(record, f"{caption} {index}", index / 100, cider, replies))
    scores = caption_scores(["кот спит", "дом"], [["кот спит"], ["дом у реки"]])[0]
    outcomes = reliability([0.05, 0.55, 0.95], [False, True, True])
    answers = AnswerScores(2, 50, 62.5)
    return Evaluation(
        captions=(CaptionRow("model", scores), CaptionRow("human", replace(scores, cider=1234.56, novel=12.5))),
        answers=(AnswerRow("open", answers, "красного", answers), AnswerRow("yes_no", answers, "", None)),
        caption_reliability=outcomes,
        answer_reliability=None,
        predictions=tuple(predictions),
    )


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self.section = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("img", "meta"):
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
            self.sections[self.section] = []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h3":
            self.sections[self.section].append(data)


def write(found: Evaluation, folder: Path, photos: int = 300, language: str = "ru") -> str:
    path = folder / "report.html"
    write_report(found, path, "Проверка", language, photos)  # type: ignore[arg-type]
    assert sorted(p.suffix for p in folder.iterdir() if p.suffix != ".png") == [".html"]
    return path.read_text(encoding="utf-8")


def test_best_then_worst_then_evenly_between(tmp_path: Path) -> None:
    ciders = [float(n * 37 % 20) for n in range(20)]
    page = Page(write(evaluation(tmp_path, ciders), tmp_path, photos=9))
    ordered = [f"Кот спит {index}" for index in sorted(range(20), key=lambda index: -ciders[index])]
    assert list(page.sections) == ["best", "worst", "between"]
    assert page.sections["best"] == ordered[:3]
    assert page.sections["worst"] == ordered[:-4:-1]
    assert page.sections["between"] == [ordered[index] for index in (3, 7, 12)]
    assert len(page.images) == 9


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_a_small_set_is_shown_whole_and_once(tmp_path: Path, count: int) -> None:
    page = Page(write(evaluation(tmp_path, [float(n) for n in range(count)]), tmp_path))
    shown = [caption for section in page.sections.values() for caption in section]
    assert sorted(shown) == sorted(f"Кот спит {index}" for index in range(count))


def test_thumbnails_are_embedded_and_small(tmp_path: Path) -> None:
    page = Page(write(evaluation(tmp_path, [1.0]), tmp_path))
    (image,) = page.images
    assert image["alt"] == "Кот спит 0"
    data = base64.b64decode((image["src"] or "").removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (THUMBNAIL, THUMBNAIL * 2 // 3)


def test_nothing_is_loaded_or_run(tmp_path: Path) -> None:
    text = write(evaluation(tmp_path, [1.0, 2.0]), tmp_path)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert not {"script", "link", "iframe", "object"} & set(Page(text).tags)
    assert "default-src 'none'" in text


def test_texts_are_escaped_and_cut(tmp_path: Path) -> None:
    found = evaluation(tmp_path, [1.0, 2.0], caption=HOSTILE)
    reply = Reply(Question(HOSTILE, HOSTILE), HOSTILE + "?", 0.5)
    record = replace(found.predictions[0].record, captions=(HOSTILE, "ы" * 10_000), origin=HOSTILE)
    hostile = replace(found.predictions[0], record=record, replies=(reply, *found.predictions[0].replies))
    row = replace(found.answers[0], majority=HOSTILE)
    text = write(replace(found, predictions=(hostile, found.predictions[1]), answers=(row,)), tmp_path)
    page = Page(text)
    assert "script" not in page.tags
    assert page.sections["best"] + page.sections["worst"] == [f"{HOSTILE} 1", f"{HOSTILE} 0"]
    assert page.images[0]["alt"] == f"{HOSTILE} 1"
    assert "onerror" not in page.images[0]
    assert "ы" * LONGEST_TEXT + "…" in text


def test_a_photo_that_does_not_open_leaves_its_error(tmp_path: Path) -> None:
    found = evaluation(tmp_path, [1.0, 2.0])
    found.predictions[0].record.image.unlink()
    page = write(found, tmp_path)
    assert len(Page(page).images) == 1
    assert "Фото не открылось" in page
    assert "0.png" in page


def test_a_lone_surrogate_does_not_stop_the_page(tmp_path: Path) -> None:
    found = evaluation(tmp_path, [1.0], caption="кот \ud800")
    assert "кот ? 0" in write(found, tmp_path)


def test_both_languages(tmp_path: Path) -> None:
    found = evaluation(tmp_path, [1.0, 2.0, 3.0])
    russian, english = write(found, tmp_path), write(found, tmp_path, language="en")
    assert '<html lang="ru">' in russian and "Лучшие" in russian and "1234,6" in russian
    assert '<html lang="en">' in english and "Best" in english and "1234.6" in english
    assert "25,0" in russian and "Photos shown: 3 of 3." in english
    assert WORDING["ru"].keys() == WORDING["en"].keys()


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none/report\.html: the report cannot be written"):
        write_report(evaluation(tmp_path, [1.0]), tmp_path / "none" / "report.html", "Проверка")


def test_tables(tmp_path: Path) -> None:
    captions, answers, confidence = tables(evaluation(tmp_path, []), "en")
    human = dict(zip(captions.header, captions.rows[1], strict=True))
    assert human["whose"] == "a person"
    assert (human["CIDEr-D"], human["novel, %"], human["photos"]) == ("1234.6", "12.5", "2")
    assert captions.rows[0][captions.header.index("novel, %")] == "–"
    assert answers.rows == (
        ("open", "2", "50.0", "62.5", "красного", "50.0", "62.5"),
        ("yes / no", "2", "50.0", "62.5", "–", "–", "–"),
    )
    assert [row[0] for row in confidence.rows] == ["captions"]
    assert confidence.rows[0][1:4] == ("3", "66.7", "51.7")


def test_reliability_table_leaves_out_empty_bins() -> None:
    table = reliability_table("Уверенность", reliability([0.05, 0.07, 0.95], [False, True, True]))
    assert table.rows == (("0–10 %", "2", "6,0", "50,0"), ("90–100 %", "1", "95,0", "100,0"))


TABLE = Table("Название", ("чьи", "CIDEr-D"), (("модель", "34,8"), ("a|b", "7,0")))


def test_as_text() -> None:
    assert as_text(TABLE).splitlines() == ["Название", "чьи     CIDEr-D", "модель     34,8", "a|b         7,0"]


def test_as_markdown() -> None:
    assert as_markdown(TABLE).splitlines() == [
        "| чьи    | CIDEr-D |",
        "|:-------|--------:|",
        "| модель |    34,8 |",
        "| a\\|b   |     7,0 |",
    ]


def test_as_rich_shows_cells_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(as_rich(Table("Название", ("чьи", "n"), (("[bold]модель[/]", "34,8"),))))
    assert "[bold]модель[/]" in console.file.getvalue()
