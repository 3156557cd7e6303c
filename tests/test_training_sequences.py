"""Packed rows against each text on its own, and the data's texts as tokens."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from rucap.training.sequences import Text, detail_of, hidden_states, pack, token_logits
from rucap.training.views import names_a_side, view_of
from rucap.training.vocabulary import train_tokenizer


@pytest.fixture(scope="module")
def language_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=40, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


def test_packed_texts_get_the_logits_they_would_get_alone(language_model: GPT2LMHeadModel) -> None:
    random = np.random.default_rng(0)
    prefix = torch.randn(2, 3, 32)
    rows = []
    for hints, lengths in ((4, (5, 2, 7)), (0, (3, 6))):
        texts = [Text(tuple(random.integers(1, 50, n).tolist()), (0.0, *[1.0] * (n - 1))) for n in lengths]
        rows.append((random.integers(1, 50, hints).tolist(), texts))
    batch = pack(rows, longest=30)
    chosen = batch.weights > 0
    with torch.no_grad():
        logits = token_logits(language_model, hidden_states(language_model, prefix, batch), chosen)
        alone = []
        for number, (hints, texts) in enumerate(rows):
            for text in texts:
                embedded = language_model.transformer.wte(torch.tensor([[*hints, *text.tokens]]))
                whole = language_model(inputs_embeds=torch.cat([prefix[number : number + 1], embedded], 1)).logits[0]
                first = 3 + len(hints)
                alone.append(whole[first : first + len(text.tokens) - 1])
    torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert batch.tokens[chosen].tolist() == [t for _, texts in rows for text in texts for t in text.tokens[1:]]


def test_a_text_too_long_for_the_positions_is_cut() -> None:
    batch = pack([([7, 8], [Text((1,) * 9, (1.0,) * 9), Text((2, 3), (0.0, 1.0))])], longest=5)
    assert batch.tokens[0].tolist() == [7, 8, 1, 1, 1, 2, 3]
    assert int(batch.positions.max()) == 4


def test_loss_weights_reach_the_loss(language_model: GPT2LMHeadModel) -> None:
    text = Text((1, 2, 3), (0.0, 0.1, 1.0))
    batch = pack([([], [text])], longest=30)
    prefix = torch.randn(1, 3, 32)
    with torch.no_grad():
        chosen = batch.weights > 0
        logits = token_logits(language_model, hidden_states(language_model, prefix, batch), chosen)
        losses = functional.cross_entropy(logits, batch.tokens[chosen], reduction="none")
    assert batch.weights[chosen].tolist() == pytest.approx([0.1, 1.0])
    assert len(losses) == 2


@pytest.mark.parametrize(
    ("caption", "detail"),
    [
        ("Собака бежит", "short"),
        ("Собака бежит по зелёной траве за мячом", "normal"),
        ("Большая рыжая собака с белой грудью бежит по зелёной траве за мячом", "detailed"),
    ],
)
def test_levels_of_detail_follow_the_length(caption: str, detail: str) -> None:
    assert detail_of(caption) == detail


def test_texts_about_sides_are_known() -> None:
    told = ["Слева стоит дом", "дом справа", "левая рука поднята", "на правом берегу", "поворачивает влево"]
    untold = ["Собака бежит", "правда", "лев лежит на траве", "лева", "правит лодкой"]
    assert [names_a_side(text) for text in told] == [True] * 5
    assert [names_a_side(text) for text in untold[:3]] == [False] * 3
    assert not names_a_side(untold[4])


def test_views_depend_on_content_and_number_only() -> None:
    first, second = "ab" * 32, "cd" * 32
    assert view_of(3, first) == view_of(3, first)
    assert view_of(3, first) != view_of(4, first)
    assert view_of(3, first) != view_of(3, second)
    assert not view_of(0, first).mirrored
    assert view_of(1, first).mirrored
    for number in range(2, 50):
        left, top, right, bottom = view_of(number, first).box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) > 0.55


def test_a_learnt_vocabulary_writes_back_what_it_read() -> None:
    from rucap.model.tokenizer import Tokenizer

    texts = ["рыжая кошка спит на диване", "собака бежит по траве", "кошка и собака"] * 5
    tokenizer = Tokenizer(train_tokenizer(texts, 400))
    assert len(tokenizer) <= 400
    for text in ("рыжая кошка, №5", "ёжик 🙂 в тумане", "Z-образный", "<end>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.id_of("<end>") not in tokenizer.encode("<end>")
