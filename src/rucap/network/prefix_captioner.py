"""The whole captioner as one torch module: encoder, mapper, language model (ClipCap, arXiv:2111.09734, figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from rucap.errors import ModelError
from rucap.model.config import ModelConfig
from rucap.network.efficientnet_lite import EfficientNetLite, load_imagenet_weights
from rucap.network.mapper import build_mapper


def build_language_model(config: ModelConfig) -> nn.Module:
    """A causal language model of transformers, with fresh weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(config.language_model.kind, **config.language_model.settings)
    build: Callable[..., nn.Module] = AutoModelForCausalLM.from_config
    return build(settings, attn_implementation="sdpa")


class PrefixCaptioner(nn.Module):
    """Photos to prefixes, and the language model that writes from them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = EfficientNetLite()
        self.mapper = build_mapper(
            config.mapper, config.encoder.width, config.encoder.cells, config.language_model.width
        )
        self.language_model = build_language_model(config)

    def prefix(self, features: Tensor) -> Tensor:
        """Maps the trunk's features (what training caches) to a prefix, [batch, prefix_length, width]."""
        cells = self.encoder.cells(features)
        if self.config.mapper.normalize:
            cells = functional.normalize(cells, dim=-1)
        return self.mapper(cells)  # type: ignore[no-any-return]

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps pixels [batch, 3, size, size] to the prefix and, where hints are used, label logits [batch, labels]."""
        features = self.encoder.trunk(pixels)
        labels = self.encoder.label_logits(features) if self.config.hints else None
        return self.prefix(features), labels


PACKAGED = ("encoder.stem.", "encoder.stages.", "encoder.label_tail.", "encoder.classifier.")
"""Tensors that stay as the encoder's own package has them: they are not written again with each model."""


def save_weights(network: PrefixCaptioner, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes what training changes as safetensors in `dtype`, under a temporary name first; tied tensors once."""
    seen: set[tuple[int, torch.Size]] = set()
    tensors = {}
    for name, tensor in network.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in seen and not name.startswith(PACKAGED):
            seen.add(key)
            tensors[name] = tensor.to(dtype).contiguous()
    partial = path.with_name(path.name + ".part")
    save_file(tensors, partial)
    partial.replace(path)


def load_weights(network: PrefixCaptioner, path: Path) -> None:
    """Loads safetensors written by `save_weights`. Raises ModelError naming a missing, extra or misshaped tensor."""
    tensors = load_file(path)
    wanted = network.state_dict()
    for name, tensor in tensors.items():
        if name not in wanted:
            raise ModelError(f"{path}: unexpected tensor {name}; config.json may belong to another model")
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            raise ModelError(f"{path}: the tensor {name} has the shape {shapes}; config.json may be of another model")
    loaded = {wanted[name].data_ptr() for name in tensors}
    for name, tensor in wanted.items():
        if tensor.data_ptr() not in loaded and not name.startswith(PACKAGED):
            raise ModelError(f"{path}: the tensor {name} is missing; the file may be of another model")
    network.load_state_dict(tensors, strict=False)


def fresh_network(config: ModelConfig) -> PrefixCaptioner:
    """A captioner to be trained: the encoder as its package has it, all else random."""
    network = PrefixCaptioner(config)
    load_imagenet_weights(network.encoder)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_network(config: ModelConfig, weights: Path) -> PrefixCaptioner:
    """A trained captioner, in evaluation mode. Raises ModelError as `load_weights` does."""
    network = fresh_network(config)
    load_weights(network, weights)
    return network.eval()
