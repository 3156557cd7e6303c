"""ClipCap's checkpoints (Mokady et al., arXiv:2111.09734): what is in the file, and which mapper it is.

A checkpoint is a stranger's file: it is read as tensors alone, never as code.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rucap.errors import ModelError
from rucap.model.config import MapperConfig

LANGUAGE_MODEL, MAPPER = "gpt.", "clip_project."
OLD_BUFFERS = re.compile(r"(.*\.)?h\.\d+\.attn\.(bias|masked_bias)")
"""The causal mask, which transformers kept among GPT-2's tensors until release 4.27."""
HEADS = 8
"""Of every published transformer mapper; the tensors do not tell."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's parts, their tensors under the names that `rucap.network` gives them."""

    language_model: dict[str, Tensor]
    """Empty where the file holds a mapper alone."""
    mapper: dict[str, Tensor]
    config: MapperConfig
    features: int
    """Width of the vision features that the mapper takes."""
    width: int
    """Width of the language model's vectors."""


def read_checkpoint(path: Path, width: int, normalize: bool = False) -> Checkpoint:
    """Reads a checkpoint for a language model of this width.

    Raises ModelError when the file cannot be read, or naming a tensor that is missing, extra or of a wrong shape.
    """
    tensors = read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {LANGUAGE_MODEL: {}, MAPPER: {}}
    for name, tensor in tensors.items():
        part = next((part for part in parts if name.startswith(part)), None)
        if part is None:
            raise ModelError(f"{path}: unexpected tensor {name}: ClipCap's begin with {LANGUAGE_MODEL} or {MAPPER}")
        if not (part == LANGUAGE_MODEL and OLD_BUFFERS.fullmatch(name.removeprefix(part))):
            parts[part][name.removeprefix(part)] = tensor
    mapper, config, features = _mapper(parts[MAPPER], width, str(path), normalize)
    return Checkpoint(parts[LANGUAGE_MODEL], mapper, config, features, width)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `torch.save`d state dict or a safetensors file. Raises ModelError; runs no code."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the captioner's checkpoint (.pt or .safetensors)")
    if _is_torchscript(path):
        raise ModelError(
            f"{path}: refused: a TorchScript archive holds code; where you trust it, save its tensors alone:"
            " torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            # Mapped, not read: what is not needed never fills memory. Only the zip form of torch 1.6 on can be.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "Weights only" in str(error):
            raise ModelError(f"{path}: refused: it holds something besides tensors, which could be code") from None
        raise ModelError(f"{path}: cannot be read; the file is damaged or no checkpoint of torch") from None
    except Exception:  # torch raises half a dozen kinds for damaged files
        raise ModelError(f"{path}: cannot be read; the file is damaged, cut off or no checkpoint of torch") from None
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: not a state dict but a {type(found).__name__}")
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{path}: not a state dict: {name!r} is a {type(tensor).__name__}, not a tensor")
        tensors[name.removeprefix("module.")] = tensor  # the wrapper that training on several GPUs leaves
    return tensors


def _is_torchscript(path: Path) -> bool:
    """Whether it is what `torch.jit.save` writes, as OpenAI publishes CLIP."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _mapper(
    tensors: dict[str, Tensor], width: int, where: str, normalize: bool
) -> tuple[dict[str, Tensor], MapperConfig, int]:
    """The mapper's tensors under our names, its configuration, and the width of the features it takes."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in tensors:
            raise ModelError(
                f"{where}: the tensor {MAPPER}{name} is missing; the file is no ClipCap checkpoint, or cut"
            )
        if tensors[name].dim() != dimensions:
            raise ModelError(f"{where}: the tensor {MAPPER}{name} has the shape {tuple(tensors[name].shape)}")
        return tuple(tensors[name].shape)

    def vectors(name: str, rows: int) -> int:
        if rows % width:
            raise ModelError(
                f"{where}: the tensor {MAPPER}{name} has {rows} rows, no multiple of the language model's"
                f" width {width}; give the language model that it was trained with"
            )
        return rows // width

    if "prefix_const" in tensors:
        length, made = shape("prefix_const", 2)
        if made != width:
            raise ModelError(f"{where}: {MAPPER}prefix_const is {made} wide, the language model {width}: they differ")
        rows, features = shape("linear.weight", 2)
        found = (re.match(r"transformer\.layers\.(\d+)\.", name) for name in tensors)
        layers = 1 + max((int(match[1]) for match in found if match), default=-1)
        constants = vectors("linear.weight", rows)
        config = MapperConfig("transformer", length, layers, HEADS, constant_length=constants, normalize=normalize)
        return dict(tensors), config, features
    if "weight" in tensors:  # the older form: a single linear layer, without the MLP's names
        rows, features = shape("weight", 2)
        renamed = {"model.0." + name if name in ("weight", "bias") else name: t for name, t in tensors.items()}
        return renamed, MapperConfig("mlp", vectors("weight", rows), 1, normalize=normalize), features
    hidden, features = shape("model.0.weight", 2)
    rows, _ = shape("model.2.weight", 2)
    length = vectors("model.2.weight", rows)
    return dict(tensors), MapperConfig("mlp", length, 2, width=hidden, normalize=normalize), features
