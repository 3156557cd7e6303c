"""A page for a Space of the Hugging Face hub: a photo in; a caption, further captions and answers out.

It runs what it is given: RUCAP_MODEL names the model (a name, a folder or a hub id), the bundled one unless set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from rucap import Captioner, RucapError

DETAILS: dict[str, Any] = {"как обычно": None, "кратко": "short", "средне": "normal", "подробно": "detailed"}
MOST_CAPTIONS = 5
WAITING = 32
"""Requests that wait their turn; further ones are told to come later."""
KEPT = (600, 3600)
"""Photos that were sent are deleted after an hour, which is looked after every ten minutes (in seconds)."""

Result = TypeVar("Result")


def build(captioner: Captioner) -> gr.Blocks:
    """The page, not yet served."""
    levels = [name for name, level in DETAILS.items() if level is None or level in captioner.config.prompts.details]

    def describe(photo: str | None, detail: str, count: int) -> tuple[str, str, list[list[str]]]:
        options = {"detail": DETAILS[detail], "num_captions": int(count)}
        caption = _told(lambda: captioner.caption(_chosen(photo), **options))
        others = [[each.text, _percent(each.confidence)] for each in caption.alternatives]
        return caption.text, _percent(caption.confidence), others

    def ask(photo: str | None, question: str) -> tuple[str, str]:
        answer = _told(lambda: captioner.answer(_chosen(photo), question))
        return answer.text, _percent(answer.confidence)

    page: gr.Blocks = gr.Blocks(
        title="rucap: описания фотографий по-русски", analytics_enabled=False, delete_cache=KEPT
    )
    with page:
        gr.Markdown("# Описания фотографий по-русски\nВыберите фото: модель опишет его и ответит на вопросы о нём.")
        with gr.Row():
            with gr.Column():
                photo = gr.Image(type="filepath", image_mode=None, label="Фото", elem_id="photo")
                detail = gr.Radio(levels, value=levels[0], label="Насколько подробно", elem_id="detail")
                count = gr.Slider(1, MOST_CAPTIONS, value=3, step=1, label="Сколько подписей", elem_id="count")
                describing = gr.Button("Описать", variant="primary", elem_id="describe")
            with gr.Column():
                caption = gr.Textbox(label="Подпись", elem_id="caption", buttons=["copy"])
                sureness = gr.Textbox(label="Уверенность", elem_id="confidence")
                others = gr.Dataframe(headers=["другие подписи", "уверенность"], wrap=True, elem_id="others")
                question = gr.Textbox(label="Вопрос", placeholder="Что делает собака?", elem_id="question")
                asking = gr.Button("Спросить", elem_id="ask")
                answer = gr.Textbox(label="Ответ", elem_id="answer")
                answer_sureness = gr.Textbox(label="Уверенность в ответе", elem_id="answer-confidence")
        describing.click(describe, [photo, detail, count], [caption, sureness, others])
        asking.click(ask, [photo, question], [answer, answer_sureness])
        question.submit(ask, [photo, question], [answer, answer_sureness])
    page.queue(max_size=WAITING)
    return page


def looks() -> dict[str, Any]:
    """How the page is served: fonts of the reader's own system, so that no other site is asked for any."""
    fonts = ["system-ui", "sans-serif"]
    return {"theme": gr.themes.Soft(font=fonts, font_mono=["monospace"]), "max_file_size": "20mb"}


def _chosen(photo: str | None) -> str:
    if photo is None:
        raise gr.Error("Сначала выберите фото.")
    return photo


def _told(work: Callable[[], Result]) -> Result:
    """The result; an error meant for people is shown on the page, in Russian."""
    from rucap.cli.messages import translated

    try:
        return work()
    except RucapError as error:
        raise gr.Error(translated(str(error)), print_exception=False) from None


def _percent(confidence: float | None) -> str:
    return "не оценивается" if confidence is None else f"{100 * confidence:.0f} %"


if __name__ == "__main__":
    os.environ["LC_MESSAGES"] = "ru_RU.UTF-8"  # the language of errors
    build(Captioner(os.environ.get("RUCAP_MODEL", "tiny"))).launch(**looks())
