"""What the language model reads after the prefix: hints, then the caption prompt or a question, as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rucap.errors import OptionError
from rucap.model.config import PromptsConfig
from rucap.model.sentence import capitalised, feeding_form, normalised
from rucap.model.tokenizer import Tokenizer


def hint_tokens(tokenizer: Tokenizer, prompts: PromptsConfig, hint: str) -> list[int]:
    """The tokens of a hint text; none when the text is empty or the model takes no hints."""
    return tokenizer.encode_prompt(prompts.hints, hints=hint) if hint and prompts.hints else []


def caption_tokens(tokenizer: Tokenizer, prompts: PromptsConfig, detail: str | None = None) -> list[int]:
    """The caption prompt, of a level of detail if given. Raises OptionError when the model lacks that level."""
    if detail is None:
        return tokenizer.encode_prompt(prompts.caption)
    if detail not in prompts.details:
        known = ", ".join(prompts.details) or "none"
        raise OptionError(f"detail {detail!r}: this model's levels of detail are: {known}")
    return tokenizer.encode_prompt(prompts.details[detail])


def question_tokens(tokenizer: Tokenizer, prompts: PromptsConfig, question: str) -> list[int]:
    """The prompt of a question, checked already (see `sentence.checked_question`)."""
    return tokenizer.encode_prompt(prompts.question, question=fed_text(prompts, question))


def text_tokens(tokenizer: Tokenizer, prompts: PromptsConfig, text: str) -> list[int]:
    """The tokens of a caption, an answer or the beginning of one, as the model is to read or write it."""
    return tokenizer.encode(fed_text(prompts, text))


def some_text_tokens(tokenizer: Tokenizer, prompts: PromptsConfig, text: str) -> list[int]:
    """`text_tokens` of a text that is to say something. Raises OptionError for an empty one."""
    if not (tokens := text_tokens(tokenizer, prompts, text)):
        raise OptionError("a text is empty: leave it out")
    return tokens


def banned_tokens(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Token sequences that write these words (or phrases), as given, within a text or at its beginning.

    Other forms of a word are other words. A word whose tokens begin with all of a banned one's is banned with it.
    Raises OptionError for an empty word.
    """
    sequences = set()
    for word in words:
        if not (word := normalised(word)):
            raise OptionError("a banned word is empty: leave it out")
        for form in (" " + word, " " + feeding_form(word), " " + capitalised(word), capitalised(word)):
            sequences.add(tuple(tokenizer.encode(form)))
    return tuple(sorted(sequences))


def fed_text(prompts: PromptsConfig, text: str) -> str:
    """`text` in the form in which this model knows texts."""
    return feeding_form(text) if prompts.first_letter == "lower" else normalised(text)


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Tokens [batch, length] and mask [batch, length], padding first: what `Engine.start` takes."""
    length = max(map(len, sequences), default=0)
    tokens = np.full((len(sequences), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(sequences), length), dtype=bool)
    for row, sequence in enumerate(sequences):
        if sequence:
            tokens[row, -len(sequence) :] = sequence
            mask[row, -len(sequence) :] = True
    return tokens, mask
