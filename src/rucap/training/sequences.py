"""Packed sequences: all texts of a photo in one row, behind one prefix.

    prefix | hints | <caption> text <end> | <short> text <end> | <question> text <answer> text <end> | ...

Each text sees the prefix, the hints and itself, and its positions go on from the hints, as if it stood there alone.
So the prefix is computed once for all texts of a photo, and only predicted tokens go through the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rucap.model import prompts
from rucap.model.config import PromptsConfig
from rucap.model.tokenizer import Tokenizer

HINTS = 0
PADDING = -1
DETAIL_WORDS = (("short", 5), ("normal", 10))
"""A caption's level of detail by its number of words, at most; longer ones are `detailed`."""


@dataclass(frozen=True)
class Text:
    """One text of a row: `tokens`, and for each the weight of predicting it from those before."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class PackedBatch:
    """Rows of a batch, padded at their ends; all [batch, length]."""

    tokens: Tensor
    segments: Tensor
    """Number of the text in the row, from 1; 0 for hints, -1 for padding."""
    positions: Tensor
    """Position after the prefix, from 0."""
    weights: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """The batch on another device."""
        return PackedBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def detail_of(caption: str) -> str:
    """The level of detail of a caption, by its length in words."""
    words = len(caption.split())
    return next((name for name, most in DETAIL_WORDS if words <= most), "detailed")


def caption_text(tokenizer: Tokenizer, config: PromptsConfig, caption: str, plain: bool) -> Text:
    """A caption behind the plain prompt or that of its level of detail."""
    detail = detail_of(caption)
    prompt = prompts.caption_tokens(tokenizer, config, None if plain or detail not in config.details else detail)
    return continued(prompt, prompts.text_tokens(tokenizer, config, caption), tokenizer)


def question_text(
    tokenizer: Tokenizer, config: PromptsConfig, question: str, answer: str, weights: tuple[float, float]
) -> Text:
    """A question and its answer, with the weights of the tokens of either."""
    prompt = prompts.question_tokens(tokenizer, config, question)
    return continued(prompt, prompts.text_tokens(tokenizer, config, answer), tokenizer, *weights)


def continued(
    prompt: Sequence[int],
    written: Sequence[int],
    tokenizer: Tokenizer,
    prompt_weight: float = 0.0,
    weight: float = 1.0,
) -> Text:
    """A prompt and what the model is to write after it, with the end token."""
    tokens = (*prompt, *written, tokenizer.id_of("<end>"))
    weights = (0.0,) + (prompt_weight,) * (len(prompt) - 1) + (weight,) * (len(written) + 1)
    return Text(tokens, weights)


def pack(rows: Sequence[tuple[Sequence[int], Sequence[Text]]], longest: int) -> PackedBatch:
    """Packs (hint tokens, texts) rows. A text that would end beyond position `longest` is cut there, hints half way."""
    packed = []
    for long_hints, texts in rows:
        hints = long_hints[: longest // 2]
        tokens, weights = list(hints), [0.0] * len(hints)
        segments, positions = [HINTS] * len(hints), list(range(len(hints)))
        for number, text in enumerate(texts, start=1):
            length = min(len(text.tokens), longest - len(hints))
            tokens += text.tokens[:length]
            weights += text.weights[:length]
            segments += [number] * length
            positions += range(len(hints), len(hints) + length)
        packed.append((tokens, segments, positions, weights))
    length = max(len(row[0]) for row in packed)
    padded = [
        [[*values, *[fill] * (length - len(values))] for values in column]
        for column, fill in zip(zip(*packed, strict=True), (0, PADDING, 0, 0.0), strict=True)
    ]
    whole = [torch.tensor(values) for values in padded[:3]]
    return PackedBatch(whole[0], whole[1], whole[2], torch.tensor(padded[3], dtype=torch.float32))


def attention_mask(segments: Tensor, prefix_length: int, dtype: torch.dtype) -> Tensor:
    """The additive mask [batch, 1, P + length, P + length]: causal, and each text apart from the others."""
    batch, length = segments.shape
    with_prefix = torch.cat([segments.new_full((batch, prefix_length), HINTS), segments], 1)
    query, key = with_prefix[:, :, None], with_prefix[:, None, :]
    total = prefix_length + length
    causal = torch.ones(total, total, dtype=torch.bool, device=segments.device).tril()
    allowed = causal & ((key == HINTS) | (key == query))
    return torch.zeros(allowed.shape, dtype=dtype, device=segments.device).masked_fill_(~allowed, -1e4)[:, None]


def hidden_states(language_model: torch.nn.Module, prefix: Tensor, batch: PackedBatch) -> Tensor:
    """The language model's last hidden state before each token: [batch, length, width]."""
    embeddings = language_model.get_input_embeddings()(batch.tokens)  # type: ignore[operator]
    prefix_length = prefix.shape[1]
    first = torch.arange(prefix_length, device=prefix.device).expand(len(prefix), -1)
    states = language_model.base_model(  # type: ignore[operator]
        inputs_embeds=torch.cat([prefix.to(embeddings.dtype), embeddings], 1),
        attention_mask=attention_mask(batch.segments, prefix_length, embeddings.dtype),
        position_ids=torch.cat([first, batch.positions + prefix_length], 1),
        use_cache=False,
    )[0]
    return states[:, prefix_length - 1 : -1]  # type: ignore[no-any-return]


def token_logits(language_model: torch.nn.Module, states: Tensor, chosen: Tensor) -> Tensor:
    """Logits [chosen tokens, vocabulary] at the positions that `chosen` [batch, length] marks.

    A text's first token is never chosen: what stands before it in the row is another text.
    """
    return language_model.get_output_embeddings()(states[chosen])  # type: ignore[operator,no-any-return]
