"""The text half of a whole CLIP's or SigLIP's folder, to its configuration, tokenizer and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from tokenizers import normalizers
from torch import Tensor

from rucap.errors import ModelError
from rucap.importing.folders import lasting
from rucap.model.config import TextTowerConfig
from rucap.model.sentence import RULES
from rucap.network.pretrained import first_line, quiet_transformers
from rucap.network.text_tower import build_text_tower

WORD, SHARE = 3, 0.01
"""A tower reads a language that this share of its vocabulary, words' parts of so many letters or more, is written in.
Of OpenAI's CLIP 6 tokens in 48,894 are Russian, 45,266 English."""


@dataclass(frozen=True)
class Text:
    """A text half, read."""

    config: TextTowerConfig
    tokenizer: tokenizers.Tokenizer
    """It cuts and pads texts as the tower needs them."""
    tensors: dict[str, Tensor]


def read_text(folder: Path) -> Text:
    """Reads the text half of a CLIP or SigLIP. Raises ModelError where there is none, or it lacks its tokenizer."""
    import transformers

    # transformers makes an empty tokenizer where there is no file.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ModelError(f"{folder}: its text half cannot be used: neither tokenizer.json nor vocab.json is there")
    try:
        with quiet_transformers():
            reader = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            inner = tokenizers.Tokenizer.from_str(reader.backend_tokenizer.to_str())
            model, found = transformers.AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:  # its loaders fail in as many ways as there are files
        raise ModelError(f"{folder}: its text half cannot be loaded: {first_line(error)}") from None
    if not hasattr(model, "logit_scale") or found["missing_keys"]:
        raise ModelError(f"{folder}: has no text half: it takes a whole CLIP or SigLIP")
    settings = lasting(model.config.text_config.to_diff_dict())
    if settings["model_type"] == "clip_text_model":
        settings["projection_dim"] = model.config.projection_dim
    bias = model.logit_bias.item() if hasattr(model, "logit_bias") else None
    length = int(model.config.text_config.max_position_embeddings)
    inner.enable_truncation(length)
    inner.enable_padding(
        direction=reader.padding_side,
        pad_id=reader.pad_token_id or 0,
        pad_token=reader.pad_token or "",
        length=None if bias is None else length,
    )
    if bias is not None:  # SigLIP was trained on lower case; files of SigLIP 2 leave it to the caller
        given = [inner.normalizer] if inner.normalizer else []
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *given])
    state = model.state_dict()
    names = build_text_tower(settings).state_dict()  # some releases of transformers leave `text_model.` out
    tensors = {name: state[name if name in state else f"text_model.{name}"] for name in names}
    config = TextTowerConfig(languages_of(inner), model.logit_scale.exp().item(), bias, settings)
    return Text(config, inner, tensors)


def languages_of(tokenizer: tokenizers.Tokenizer) -> tuple[str, ...]:
    """The languages whose words make up a good part of a vocabulary."""
    tokens = tokenizer.decode_batch([[index] for index in range(tokenizer.get_vocab_size())])
    words = [token.replace("</w>", "").strip(" ▁") for token in tokens]
    return tuple(
        language
        for language, rules in RULES.items()
        if sum(len(word) >= WORD and all(map(rules.letters.match, word)) for word in words) > SHARE * len(words)
    )
