import pytest

from rucap.model.sentence import capitalised, feeding_form


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
