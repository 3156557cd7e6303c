"""The text half of a CLIP (Radford et al., arXiv:2103.00020) or SigLIP: texts to embeddings beside those of photos.

The towers are those of transformers, under the names of its tensors. Knows tokens, not the tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rucap.engines.protocol import TEXTS
from rucap.errors import ModelError
from rucap.model.config import TextTowerConfig


def build_text_tower(settings: dict[str, Any]) -> nn.Module:
    """A tower of transformers' settings, with fresh weights. Raises ModelError for a type that is not supported."""
    import transformers

    settings = dict(settings)
    kind = settings.pop("model_type", None)
    try:
        if kind == "clip_text_model":
            return transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**settings))
        if kind == "siglip_text_model":
            return transformers.SiglipTextModel(transformers.SiglipTextConfig(**settings))
    except Exception as error:  # its configurations check themselves, with errors of their own kind
        raise ModelError(f"config.json: text_tower.settings: not a configuration of {kind}: {error}") from None
    raise ModelError(
        f"config.json: text_tower.settings.model_type {kind!r}: known are clip_text_model and siglip_text_model"
    )


def load_text_tower(config: TextTowerConfig, weights: Path) -> nn.Module:
    """A tower with its weights, in float32 and evaluation mode. Raises ModelError naming what does not fit."""
    tower = build_text_tower(config.settings)
    try:
        tower.load_state_dict(load_file(weights))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{weights}: cannot be read as safetensors: {error}") from None
    except RuntimeError as error:
        raise ModelError(f"{weights}: not of this config.json: {str(error).splitlines()[-1].strip()}") from None
    return tower.eval()


def text_embeddings(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Maps tokens [texts, length], padded as the tokenizer's file says, to embeddings [texts, width], not normalised.

    There is no mask: CLIP looks back only, so that its end token does not see the padding after it, and SigLIP was
    trained on texts padded to its full length, without one.
    """
    made = [tower(input_ids=batch) for batch in torch.split(tokens, TEXTS)]
    return torch.cat([each.text_embeds if hasattr(each, "text_embeds") else each.pooler_output for each in made])
