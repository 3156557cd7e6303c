"""A tokenizer of one's own: byte-pair merges learnt from the training texts."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = (
    "<pad>",
    "<unknown>",
    "<end>",
    "<hints>",
    "<caption>",
    "<short>",
    "<normal>",
    "<detailed>",
    "<question>",
    "<answer>",
)


def train_tokenizer(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    """Learns a vocabulary of `size` tokens; bytes stand for characters that the texts lack."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unknown>", byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    fallback = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*special, *fallback], min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer keeps a place for the bytes only as special tokens; a decoder must not skip them.
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] in SPECIAL_TOKENS]
    return Tokenizer.from_str(json.dumps(values))
