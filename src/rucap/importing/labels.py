"""Any list of labels for a CLIP encoder: the embeddings of their texts, by the text half of the same CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rucap.errors import ModelError
from rucap.network.pretrained import first_line, quiet_transformers

BATCH = 64


def label_embeddings(folder: Path, texts: Sequence[str]) -> Tensor:
    """Embeddings [texts, width], not normalised, of texts in a language that this CLIP reads ("a photo of a cat").

    The folder holds a whole CLIP or SigLIP with its tokenizer. Raises ModelError when it does not.
    """
    import transformers

    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, found = transformers.AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:  # its loaders fail in as many ways as there are files
        raise ModelError(f"{folder}: its text half cannot be loaded: {first_line(error)}") from None
    if not hasattr(model, "get_text_features") or found["missing_keys"]:
        raise ModelError(f"{folder}: has no text half: labels need a whole CLIP or SigLIP")
    model.eval()
    # SigLIP was trained on texts padded to its full length and without a mask; CLIP looks back only, so that its end
    # token does not see the padding after it.
    length = int(model.config.text_config.max_position_embeddings)
    batches = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            read = tokenizer(
                list(texts[start : start + BATCH]),
                padding="max_length", truncation=True, max_length=length, return_tensors="pt",
            )  # fmt: skip
            made = model.get_text_features(input_ids=read["input_ids"])
            batches.append(made if torch.is_tensor(made) else made.pooler_output)
    return torch.cat(batches).clone()
