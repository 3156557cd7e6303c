"""The whole captioner as one torch module: encoder, mapper, language model (ClipCap, arXiv:2111.09734, figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from rucap.errors import ModelError
from rucap.model.config import ModelConfig
from rucap.network.mapper import build_mapper
from rucap.network.vision_encoder import VisionEncoder, build_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build_language_model(config: ModelConfig) -> PreTrainedModel:
    """A causal language model of transformers, with fresh weights. Raises ModelError when transformers lacks it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    build: Callable[..., PreTrainedModel] = AutoModelForCausalLM.from_config
    try:
        settings = AutoConfig.for_model(config.language_model.kind, **config.language_model.settings)
        return build(settings, attn_implementation="sdpa")
    except Exception as error:  # its configurations check themselves, with errors of their own kind
        raise ModelError(f"config.json: language_model: transformers cannot build it: {error}") from None


class PrefixCaptioner(nn.Module):
    """Photos to prefixes, and the language model that writes from them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: VisionEncoder = build_encoder(config.encoder)
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
        return self.heads(self.encoder.trunk(pixels))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """`encode` from the trunk's features on."""
        labels = self.encoder.label_logits(features) if self.config.hints else None
        return self.prefix(features), labels

    def is_frozen(self, name: str) -> bool:
        """Whether training leaves the tensor of this name alone."""
        return name.startswith("encoder.") and name.removeprefix("encoder.").startswith(self.encoder.frozen)

    def is_packaged(self, name: str) -> bool:
        """Whether the tensor of this name stays as the encoder's package has it, and is not written with each model."""
        return self.encoder.packaged and self.is_frozen(name)


def save_weights(network: PrefixCaptioner, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes all but the packaged tensors as safetensors in `dtype`, under a temporary name first; tied ones once."""
    seen: set[tuple[int, torch.Size]] = set()
    tensors = {}
    for name, tensor in network.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in seen and not network.is_packaged(name):
            seen.add(key)
            tensors[name] = tensor
    write_tensors(tensors, path, dtype)


def write_tensors(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes tensors as safetensors in `dtype`, under a temporary name first."""
    partial = path.with_name(path.name + ".part")
    partial.touch()
    mode = partial.stat().st_mode
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, partial)
    partial.chmod(mode)  # safetensors keeps its files from all others, whatever the user's umask says
    partial.replace(path)


def load_weights(network: PrefixCaptioner, path: Path) -> None:
    """Loads safetensors written by `save_weights`, and the packaged tensors that it left out.

    Raises ModelError naming a missing, extra or misshaped tensor.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {error}") from None
    wanted = network.state_dict()
    for name, tensor in tensors.items():
        if name not in wanted:
            raise ModelError(f"{path}: unexpected tensor {name}; config.json may belong to another model")
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            raise ModelError(f"{path}: the tensor {name} has the shape {shapes}; config.json may be of another model")
    loaded = {wanted[name].data_ptr() for name in tensors}
    for name, tensor in wanted.items():
        if tensor.data_ptr() not in loaded and not network.is_packaged(name):
            raise ModelError(f"{path}: the tensor {name} is missing; the file may be of another model")
    network.encoder.load_packaged()
    network.load_state_dict(tensors, strict=False)


def fresh_network(config: ModelConfig) -> PrefixCaptioner:
    """A captioner to be trained: the encoder pretrained, all else random. Raises ModelError as the encoder does."""
    network = PrefixCaptioner(config)
    network.encoder.load_pretrained()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_network(config: ModelConfig, weights: Path) -> PrefixCaptioner:
    """A trained captioner, in evaluation mode. Raises ModelError as `load_weights` does."""
    network = PrefixCaptioner(config)
    load_weights(network, weights)
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]
