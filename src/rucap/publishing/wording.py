"""The card's fixed words, in the language that the model writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """One language's words; `example` fills the lines that use the model."""

    summary: str
    use: str
    sees: str
    misses: str
    made: str
    encoder: str
    mapper: str
    language_model: str
    sources: str
    data: str
    terms: str
    scores: str
    score_columns: tuple[str, str, str, str]
    captions: str
    open: str
    yes_no: str
    example: dict[str, str]


WORDINGS = {
    "ru": Wording(
        summary="Модель описывает фотографии по-русски и отвечает на вопросы о них.",
        use="Как пользоваться",
        sees="Что модель видит",
        misses="Чего модель не видит",
        made="Как устроена",
        encoder="зрение: `{kind}`, {size} x {size} точек, {cells} x {width}",
        mapper="отображение: `{kind}`, {prefix_length} псевдослов",
        language_model="язык: `{kind}`, слоёв {layers}, ширина {width}, словарь {vocabulary}",
        sources="сделана из",
        data="На чём обучена и на каких условиях",
        terms="Условия",
        scores="Оценки",
        score_columns=("данные", "что", "мера", "значение"),
        captions="подписи",
        open="ответы на открытые вопросы",
        yes_no="ответы «да» и «нет»",
        example={
            "question": "Что на фото?",
            "labels": '["кошка", "собака"]',
            "texts": '["Кошка лежит", "Собака бежит"]',
        },
    ),
    "en": Wording(
        summary="The model describes photos in English and answers questions about them.",
        use="How to use it",
        sees="What the model sees",
        misses="What the model does not see",
        made="What it is made of",
        encoder="vision: `{kind}`, {size} x {size} pixels, {cells} x {width}",
        mapper="mapping: `{kind}`, {prefix_length} pseudo-words",
        language_model="language: `{kind}`, {layers} layers, width {width}, vocabulary {vocabulary}",
        sources="made from",
        data="What it was trained on, and on which terms",
        terms="Terms",
        scores="Scores",
        score_columns=("data", "what", "metric", "value"),
        captions="captions",
        open="answers to open questions",
        yes_no="answers yes and no",
        example={
            "question": "What is in the photo?",
            "labels": '["cat", "dog"]',
            "texts": '["A cat lies down", "A dog runs"]',
        },
    ),
}
