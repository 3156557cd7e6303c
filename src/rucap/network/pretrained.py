"""Pretrained vision towers, through transformers' own loading: local folders and hub ids alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from rucap.errors import ModelError


def pretrained_tower(source: str | Path) -> nn.Module:
    """The vision tower of a local folder or a hub id, in float32. Raises ModelError naming what does not fit.

    The folder may hold a whole CLIP or SigLIP, or its vision half.
    """
    import transformers

    towers = {"clip": "CLIPVisionModelWithProjection", "siglip": "SiglipVisionModel"}
    try:
        kind = str(transformers.AutoConfig.from_pretrained(source, trust_remote_code=False).model_type)
        family = kind.removesuffix("_vision_model")
        if family not in towers:
            raise ModelError(
                f"{source}: a vision encoder of type {kind!r}; known are {', '.join(towers)} and OpenAI's ResNets"
            )
        load = getattr(transformers, towers[family]).from_pretrained
        with quiet_transformers():  # it reports the text half as unexpected
            tower, found = load(source, dtype=torch.float32, output_loading_info=True)
    except ModelError:
        raise
    except Exception as error:  # its configurations check themselves, with errors of their own kind
        raise ModelError(f"{source}: transformers cannot load its vision tower: {first_line(error)}") from None
    if wrong := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise ModelError(f"{source}: the tensor {wrong[0]} is missing or misshaped; the folder is incomplete")
    module: nn.Module = tower.eval()
    return module


def first_line(error: Exception) -> str:
    """The first line of an error's text that says anything."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers from writing to the terminal but for errors."""
    import logging as levels

    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
