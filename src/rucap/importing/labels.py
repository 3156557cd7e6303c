"""Any list of labels for a CLIP encoder: the embeddings of their texts, by the text half of the same CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rucap.importing.text import read_text
from rucap.network.text_tower import build_text_tower, text_embeddings


def label_embeddings(folder: Path, texts: Sequence[str]) -> Tensor:
    """Embeddings [texts, width], not normalised, of texts in a language that this CLIP reads ("a photo of a cat").

    The folder holds a whole CLIP or SigLIP with its tokenizer. Raises ModelError when it does not.
    """
    text = read_text(folder)
    tower = build_text_tower(text.config.settings).eval()
    tower.load_state_dict(text.tensors)
    with torch.inference_mode():
        tokens = torch.tensor([read.ids for read in text.tokenizer.encode_batch(list(texts))])
        return text_embeddings(tower, tokens).clone()
