"""A language model's folder, as transformers writes it, to its configuration, its tokenizer and how it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from torch import Tensor

from rucap.errors import ModelError
from rucap.importing.folders import lasting
from rucap.model.config import GenerationDefaults, LanguageModelConfig
from rucap.model.tokenizer import Tokenizer
from rucap.network.pretrained import first_line, quiet_transformers

SENTENCE_ENDS = (".", "!", "?", "…", " .", "\n")
"""Texts of one token each that end a caption: ClipCap's models were trained without an end token."""

ORIGINAL_STOPS = {"ru": "", "en": "."}
"""How the published captioners ended: ClipCap at a full stop, ruImageCaptioning at a word that never came."""


def read_language_model(folder: Path) -> tuple[LanguageModelConfig, Any]:
    """Our and transformers' configuration of a causal language model. Raises ModelError."""
    import transformers

    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # its configurations check themselves, with errors of their own kind
        raise ModelError(f"{folder}: transformers cannot read its config.json: {first_line(error)}") from None
    try:
        made = LanguageModelConfig(
            kind=config.model_type,
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings,
            settings={k: v for k, v in lasting(config.to_diff_dict()).items() if k != "model_type"},
        )
    except AttributeError as error:
        raise ModelError(f"{folder}: not a causal language model: {error}") from None
    return made, config


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a language model's folder; an older pair of vocab.json and merges.txt is converted.

    Raises ModelError when the folder has neither, or what it has cannot be read.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        Tokenizer.from_file(path)  # for its checks
        return tokenizers.Tokenizer.from_file(str(path))
    return _converted(folder)


def _converted(folder: Path) -> tokenizers.Tokenizer:
    import transformers

    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.model", "vocab.txt")):
        raise ModelError(f"{folder}: no tokenizer.json and no vocab.json with merges.txt: it must hold its tokenizer")
    try:
        with quiet_transformers():
            inner = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    except Exception as error:  # conversion fails in as many ways as there are formats
        raise ModelError(f"{folder}: its tokenizer cannot be converted: {first_line(error)}") from None
    assert isinstance(inner, tokenizers.Tokenizer)
    return inner


def generation_defaults(
    inner: tokenizers.Tokenizer,
    config: Any,  # noqa: ANN401
    language: Literal["ru", "en"],
) -> GenerationDefaults:
    """How a model of this tokenizer stops: at the end of a sentence or at its end token, whichever comes first.

    The full stop leads, as the end that counts when a given text is scored: ClipCap's training had no other. Other
    special tokens are never written. Raises ModelError when nothing could end a text.
    """
    tokenizer = Tokenizer(inner)
    ending = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    alone = [tokens[0] for tokens in tokenizer.encode_batch(SENTENCE_ENDS) if len(tokens) == 1]
    ids = dict.fromkeys(index for index in [*alone, *ending] if index is not None)
    ends = [name for name in map(inner.id_to_token, ids) if name is not None]
    if not ends:
        raise ModelError("the language model's tokenizer has no end token and no full stop: nothing could end a text")
    return GenerationDefaults(
        end_tokens=tuple(ends),
        suppressed_tokens=tuple(sorted(tokenizer.special_tokens - {*ends})),
        original_stop=ORIGINAL_STOPS[language],
    )


def language_model_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights of a language model's folder, for a checkpoint that holds a mapper alone. Raises ModelError."""
    import transformers

    try:
        with quiet_transformers():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: transformers cannot load the language model: {first_line(error)}") from None
    return dict(model.state_dict())
