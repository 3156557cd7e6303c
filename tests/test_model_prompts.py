import numpy as np
import pytest

from rucap.errors import OptionError
from rucap.model import prompts
from rucap.model.config import PromptsConfig
from rucap.model.tokenizer import Tokenizer
from test_model_tokenizer import metaspace

CONFIG = PromptsConfig("<caption>", "<question>{question}<answer>", "<hints>{hints}", {"short": "<caption>кратко"})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(metaspace())


def test_hints(tokenizer):
    assert prompts.hint_tokens(tokenizer, CONFIG, "кошка") == [tokenizer.id_of("<hints>"), *tokenizer.encode("кошка")]
    assert prompts.hint_tokens(tokenizer, CONFIG, "") == []
    assert prompts.hint_tokens(tokenizer, PromptsConfig("", "{question}"), "кошка") == []


def test_caption(tokenizer):
    assert prompts.caption_tokens(tokenizer, CONFIG) == [tokenizer.id_of("<caption>")]
    assert prompts.caption_tokens(tokenizer, CONFIG, "short")[1:] == tokenizer.encode("кратко")
    with pytest.raises(OptionError, match="short"):
        prompts.caption_tokens(tokenizer, CONFIG, "long")


def test_question_in_feeding_form(tokenizer):
    inside = prompts.question_tokens(tokenizer, CONFIG, "Где собака?")[1:-1]
    assert inside == tokenizer.encode("где собака?")


def test_text_as_written(tokenizer):
    as_written = PromptsConfig("", "{question}", first_letter="as_written")
    assert prompts.text_tokens(tokenizer, CONFIG, "Кошка  спит ") == tokenizer.encode("кошка спит")
    assert prompts.text_tokens(tokenizer, as_written, "Кошка  спит ") == tokenizer.encode("Кошка спит")


def test_pad_left():
    tokens, mask = prompts.pad_left([[5, 6], [], [7]], pad_id=9)
    np.testing.assert_array_equal(tokens, [[5, 6], [9, 9], [9, 7]])
    np.testing.assert_array_equal(mask, [[True, True], [False, False], [False, True]])
    assert tokens.dtype == np.int64


def test_pad_left_of_nothing():
    assert prompts.pad_left([[], []], 0)[0].shape == (2, 0)
    assert prompts.pad_left([], 0)[0].shape == (0, 0)
