"""What tables and the page say, in Russian and in English."""

from __future__ import annotations

from typing import Literal

Language = Literal["ru", "en"]

WORDING: dict[Language, dict[str, str]] = {
    "ru": {
        "captions": "Подписи",
        "answers": "Ответы",
        "confidence": "Уверенность",
        "reliability_captions": "Уверенность в подписях",
        "reliability_answers": "Уверенность в ответах",
        "writer": "чьи",
        "model": "модель",
        "nearest_neighbour": "ближайшее фото",
        "most_frequent": "самая частая подпись",
        "human": "человек",
        "photos": "фото",
        "words": "слов",
        "novel": "новых, %",
        "vocabulary": "словарь",
        "kind": "вопросы",
        "open": "открытые",
        "yes_no": "да / нет",
        "questions": "число",
        "exact": "верно, %",
        "majority": "частый ответ",
        "majority_exact": "им верно, %",
        "majority_f1": "его F1",
        "what": "что",
        "count": "число",
        "right": "верно, %",
        "mean_confidence": "уверенность, %",
        "calibration_error": "ошибка (ECE), %",
        "auroc": "AUROC, %",
        "range": "уверенность",
        "best": "Лучшие",
        "worst": "Худшие",
        "between": "Между ними",
        "references": "Образцы",
        "sure": "уверенность",
        "no_photo": "Фото не открылось",
        "no_caption": "(пусто)",
        "shown": "Показано фото: {shown} из {total}",
        "right_answer": "верно: ",
        "note": (
            "Все тексты сравниваются в одном виде: строчные буквы, ё = е, без знаков препинания, слова через пробел."
            " CIDEr-D: значение pycocoevalcap × 100. Человек: один образец из пяти против остальных четырёх,"
            " среднее по всем пяти."
        ),
        "note_right": "Верна подпись с CIDEr-D от {threshold}: столько набирают три из четырёх образцов.",
    },
    "en": {
        "captions": "Captions",
        "answers": "Answers",
        "confidence": "Confidence",
        "reliability_captions": "Confidence of captions",
        "reliability_answers": "Confidence of answers",
        "writer": "whose",
        "model": "model",
        "nearest_neighbour": "nearest photo's",
        "most_frequent": "most frequent caption",
        "human": "a person",
        "photos": "photos",
        "words": "words",
        "novel": "novel, %",
        "vocabulary": "vocabulary",
        "kind": "questions",
        "open": "open",
        "yes_no": "yes / no",
        "questions": "number",
        "exact": "right, %",
        "majority": "majority answer",
        "majority_exact": "right with it, %",
        "majority_f1": "its F1",
        "what": "of",
        "count": "number",
        "right": "right, %",
        "mean_confidence": "confidence, %",
        "calibration_error": "error (ECE), %",
        "auroc": "AUROC, %",
        "range": "confidence",
        "best": "Best",
        "worst": "Worst",
        "between": "In between",
        "references": "References",
        "sure": "confidence",
        "no_photo": "The photo did not open",
        "no_caption": "(empty)",
        "shown": "Photos shown: {shown} of {total}",
        "right_answer": "right: ",
        "note": (
            "All texts are compared in one form: lower case, ё = е, punctuation off, white-space words. CIDEr-D is"
            " pycocoevalcap's value × 100. A person: one reference of five against the other four, mean of all five."
        ),
        "note_right": "A caption counts as right from CIDEr-D {threshold}: three of four references reach it.",
    },
}
"""Both languages have the same keys; `{shown}`, `{total}` and `{threshold}` are filled in with str.format."""
