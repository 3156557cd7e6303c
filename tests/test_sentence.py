import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucap.errors import QuestionError
from rucap.model.sentence import (
    MAX_QUESTION_CHARACTERS,
    capitalised,
    checked_question,
    clean_answer,
    clean_caption,
    feeding_form,
    repeats,
)


@pytest.mark.parametrize(
    ("text", "fed"),
    [
        ("Собака бежит по траве", "собака бежит по траве"),
        ("  Ёлка \n стоит", "ёлка стоит"),
        ("США и Канада", "США и Канада"),
        ("Нью-Йорк ночью", "Нью-Йорк ночью"),
        ("В США", "в США"),
        ("2 кошки", "2 кошки"),
        ("", ""),
    ],
)
def test_feeding_form(text, fed):
    assert feeding_form(text) == fed
    assert feeding_form(fed) == fed
    assert feeding_form(unicodedata.normalize("NFD", text)) == fed


@pytest.mark.parametrize(
    ("text", "capital"),
    [
        ("ёлка", "Ёлка"),
        ("«метро» ночью", "«Метро» ночью"),
        ("США", "США"),
        ("2 кошки", "2 кошки"),
        ("", ""),
        ("…", "…"),
    ],
)
def test_capitalised(text, capital):
    assert capitalised(text) == capital


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("собака бежит по траве", "Собака бежит по траве"),
        ("собака бежит по траве.", "Собака бежит по траве"),
        (" .  собака бежит , а кошка спит .  и ещё", "Собака бежит, а кошка спит"),
        ("мужчина стоит,собака сидит", "Мужчина стоит, собака сидит"),
        ("собака бежит.Кошка спит", "Собака бежит"),
        ("в центре кадра – мужчина\n 1. в центре кадра", "В центре кадра – мужчина"),
        ("1. собака бежит", "Собака бежит"),
        ("а. С. Пушкин на ул. Ленина", "А. С. Пушкин на ул. Ленина"),
        ("плакат «Стой. Иди» на стене", "Плакат «Стой. Иди» на стене"),
        ("плакат «Стой на стене", "Плакат Стой на стене"),
        ("знак «стоп»", "Знак «стоп»"),
        ("«метро» ночью", "«Метро» ночью"),
        ("мяч весит 1,5 кг", "Мяч весит 1,5 кг"),
        ("собака\ufffd бежит\0", "Собака бежит"),
        ("три\u00a0 кошки", "Три кошки"),
        ("...", ""),
        ("", ""),
    ],
)
def test_one_clean_sentence(written, clean):
    assert clean_caption(written, "ru") == clean
    assert clean_caption(clean, "ru") == clean


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("розовые и розовые цветы на фоне", "Розовые цветы"),
        ("и собака и собака", "И собака"),
        ("собака и собака", "Собака"),
        ("собака собака собака бежит", "Собака бежит"),
        ("собака бежит, собака бежит по траве", "Собака бежит по траве"),
        ("мужчина в красной куртке и мужчина в красной куртке идут", "Мужчина в красной куртке идут"),
        ("собака бежит, кошка спит, собака бежит", "Собака бежит, кошка спит"),
        ("на столе на столе на столе чашка", "На столе чашка"),
    ],
)
def test_repeats_are_said_once(written, clean):
    assert clean_caption(written, "ru") == clean


@pytest.mark.parametrize(
    "caption",
    [
        "Взрослая зебра и зебра поменьше смотрят в камеру",
        "Мужчина сидит, закинув ногу на ногу, на диване",
        "Люди стоят друг за другом",
        "Мужчина в шляпе и женщина в шляпе",
        "Белый стол с буквой А",
        "Собака плывёт мимо",
        "Человек в общественном транспорте держит (ловит?) пакет",
    ],
)
def test_good_captions_stay(caption):
    assert clean_caption(feeding_form(caption), "ru") == caption


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("собака бежит по тра", "Собака бежит"),
        ("люди стоят на фоне заснеженных го", "Люди стоят"),
        ("мужчина, который", "Мужчина"),
        ("мужчина, женщина и соб", "Мужчина, женщина"),
        ("собака бежит. кош", "Собака бежит"),
        ("соба", "Соба"),
    ],
)
def test_unfinished_text_loses_what_hangs(written, clean):
    assert clean_caption(written, "ru", finished=False) == clean


def test_finished_text_keeps_its_last_word():
    assert clean_caption("собака бежит по траве", "ru") == "Собака бежит по траве"
    assert clean_caption("собака бежит по", "ru") == "Собака бежит"


def test_answer_keeps_its_letters_and_last_word():
    assert clean_answer("«Обама»", "ru") == "«Обама»"
    assert clean_answer("буква а", "ru") == "буква а"
    assert clean_answer("да.", "ru") == "да"
    assert clean_answer("в парке и в пар", "ru", finished=False) == "в парке"


def test_english():
    assert clean_caption("A man riding a wave on a surfboard. The", "en") == "A man riding a wave on a surfboard"
    assert clean_caption("a dog and a", "en") == "A dog"
    assert clean_caption("Mr. Smith and Mr. Smith", "en") == "Mr. Smith"


@given(st.text(alphabet='собака и,.!«»( )-1Я\n"…', max_size=60), st.booleans())
def test_clean_up_of_anything_is_one_clean_line(text, finished):
    clean = clean_caption(text, "ru", finished)
    assert "\n" not in clean and "  " not in clean
    assert clean == clean.strip(" .,;:!?…-")
    assert clean[:1] == clean[:1].upper()


def test_repeats():
    assert not repeats([])
    assert not repeats(["a", "b", "c", "d"])
    assert repeats(["x", "a", "b", "c", "a", "b", "c"])
    assert not repeats(["a", "b", "c", "a", "b", "c", "x"])
    assert not repeats([1, 2, 1, 2])
    assert repeats([7, 1, 2, 1, 2, 1, 2])
    assert repeats([5, 5, 5])
    assert not repeats([5, 5])
    assert repeats((1, 2, 1, 2), shortest=2)


@pytest.mark.parametrize(
    ("question", "checked"),
    [
        ("Где собака?", "Где собака?"),
        ("  где \n собака ", "где собака?"),
        ("Сколько собак.", "Сколько собак?"),
        ("Что это??!", "Что это?"),
        ("Это iPhone?", "Это iPhone?"),
    ],
)
def test_question(question, checked):
    assert checked_question(question, "ru") == checked


@pytest.mark.parametrize(
    ("question", "said"),
    [("", "empty"), (" \n", "empty"), ("а" * (MAX_QUESTION_CHARACTERS + 1), "300"), ("Where is the dog?", "Russian"),
     ("?!", "Russian"), ("犬はどこ", "Russian")],
)  # fmt: skip
def test_bad_question(question, said):
    with pytest.raises(QuestionError, match=said):
        checked_question(question, "ru")


def test_question_of_an_english_model():
    assert checked_question("Where is it", "en") == "Where is it?"
    with pytest.raises(QuestionError, match="English"):
        checked_question("Где собака?", "en")
