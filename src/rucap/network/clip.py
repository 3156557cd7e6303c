"""CLIP's vision towers (Radford et al., arXiv:2103.00020) and their kin, each photo one vector: a grid of one cell.

The towers are those of transformers, under the names of its tensors: CLIP's projected embedding, not normalised (what
ClipCap was trained on), SigLIP's pooled output (Zhai et al., arXiv:2303.15343; SigLIP 2 files of a fixed size are of
the same type). OpenAI's ResNets, which transformers lacks, are in `clip_resnet`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rucap.errors import ModelError
from rucap.model.config import EncoderConfig
from rucap.network.vision_encoder import VisionEncoder

LABEL_SCALE = 100.0
"""CLIP's largest logit scale, which its training ends at (section 2.5)."""


class ClipVision(VisionEncoder):
    """A vision tower, frozen, and optionally a matrix of the embeddings of label texts.

    Beside the tower's own settings stand `labels`, how many labels there are, and `source`, the hub id or folder that
    the tower is first loaded from. The logits of labels are CLIP's: scaled cosines of the photo's and their embeddings.
    """

    frozen = ("tower.", "label_embeddings")
    packaged = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        settings = dict(config.settings)
        self.labels = int(settings.pop("labels", 0))
        self.source = str(settings.pop("source", ""))
        self.tower, width = build_tower(settings)
        if (config.cells, config.width) != (1, width):
            raise ModelError(
                f"config.json: encoder: {config.cells} cells of {config.width} do not fit its settings:"
                f" this tower gives 1 of {width}"
            )
        self.label_embeddings: Tensor | None
        self.register_buffer("label_embeddings", torch.zeros(self.labels, width) if self.labels else None)

    def trunk(self, pixels: Tensor) -> Tensor:
        """Maps pixels [batch, 3, size, size] to embeddings [batch, width]."""
        found = self.tower(pixels)
        if isinstance(found, Tensor):
            return found
        embeddings: Tensor = found.image_embeds if hasattr(found, "image_embeds") else found.pooler_output
        return embeddings

    def cells(self, features: Tensor) -> Tensor:
        """Maps embeddings [batch, width] to the mapper's input, [batch, 1, width]."""
        return features[:, None]

    def label_logits(self, features: Tensor) -> Tensor | None:
        """Maps embeddings [batch, width] to logits [batch, labels], or to None where there are no labels."""
        if self.label_embeddings is None:
            return None
        labels = functional.normalize(self.label_embeddings, dim=-1)
        return LABEL_SCALE * functional.normalize(features, dim=-1) @ labels.T

    def load_pretrained(self) -> None:
        """Loads the tower from the hub id or folder in the settings' `source`. Raises ModelError when there is none."""
        if not self.source:
            raise ModelError(
                "config.json: encoder.settings.source: name the hub id or folder that the tower comes from"
            )
        from rucap.network.pretrained import pretrained_tower

        self.tower.load_state_dict(pretrained_tower(self.source).state_dict())


def build_tower(settings: dict[str, Any]) -> tuple[nn.Module, int]:
    """A tower of transformers' (or `clip_resnet`'s) settings, with fresh weights, and the width of what it gives.

    Raises ModelError for a type of tower that is not supported.
    """
    settings = dict(settings)
    kind = settings.pop("model_type", None)
    if kind == "clip_resnet":
        from rucap.network.clip_resnet import build_resnet

        return build_resnet(settings)
    try:
        return _transformers_tower(kind, settings)
    except ModelError:
        raise
    except Exception as error:  # its configurations check themselves, with errors of their own kind
        raise ModelError(f"config.json: encoder.settings: not a configuration of {kind}: {error}") from None


def _transformers_tower(kind: object, settings: dict[str, Any]) -> tuple[nn.Module, int]:
    import transformers

    if kind == "clip_vision_model":
        clip = transformers.CLIPVisionConfig(**settings)
        return transformers.CLIPVisionModelWithProjection(clip), clip.projection_dim
    if kind == "siglip_vision_model":
        siglip = transformers.SiglipVisionConfig(**settings)
        return transformers.SiglipVisionModel(siglip), siglip.hidden_size
    raise ModelError(
        f"config.json: encoder.settings.model_type {kind!r}: known are clip_vision_model, siglip_vision_model (SigLIP 2"
        " of a fixed size, too) and clip_resnet"
    )
