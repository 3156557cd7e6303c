"""The torch engine: any causal language model of `transformers`, and a `PrefixCaptioner` around it.

This module knows how a prefix, tokens and a cache are fed to such a model. It knows nothing of how the network was
built or of how the next token is chosen.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from rucap.engines.protocol import Booleans, Encoded, Floats, Integers

if TYPE_CHECKING:
    from rucap.network.prefix_captioner import PrefixCaptioner


@dataclass(frozen=True)
class TorchState:
    """What a batch of sequences has been read as. Never changed: `step` and `select` return new ones."""

    cache: DynamicCache
    mask: torch.Tensor
    """[batch, length] bool: False at padding."""
    positions: torch.Tensor
    """[batch] int64: the position of the token to come."""


class TorchLanguageModel:
    """The language model's half of `Engine` (`start`, `step`, `select`, `score`) over a causal LM of transformers.

    The model is put in evaluation mode and runs where its weights are. `autocast` (say `torch.bfloat16`) is the type
    that matrix products are computed in; logits are float32 whatever it is.
    """

    def __init__(self, model: PreTrainedModel, autocast: torch.dtype | None = None) -> None:
        self.model: PreTrainedModel = model.eval()  # type: ignore[no-untyped-call]
        self.autocast = autocast
        # transformers 5.2x renamed the argument; both names are in use among the releases we accept.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def start(self, prefix: Floats, tokens: Integers, mask: Booleans) -> tuple[Floats, TorchState]:
        """See `Engine.start`."""
        with self._running():
            inputs, full = self._prompt(prefix, tokens, mask)
            source = _last_real(full)[:, -1]
            # The vocabulary is the widest product of all: only a prompt of nothing but padding needs more than its end.
            keep = 1 if bool(full[:, -1].all()) else tokens.shape[1] + 1
            cache = DynamicCache(config=self.model.config)
            logits = self._forward(cache, full, _positions(full), inputs_embeds=inputs, logits_to_keep=keep)
            rows = torch.arange(len(full), device=full.device)
            last = logits[rows, (source - full.shape[1]).clamp(min=-keep)]
            return _numpy(last), TorchState(cache, full, full.sum(dim=1))

    def step(self, tokens: Integers, state: TorchState) -> tuple[Floats, TorchState]:
        """See `Engine.step`."""
        with self._running():
            inputs = self._tensor(tokens)[:, None]
            mask = torch.nn.functional.pad(state.mask, (0, 1), value=True)
            cache = _fork(state.cache)
            logits = self._forward(cache, mask, state.positions[:, None], input_ids=inputs)
            return _numpy(logits[:, -1]), TorchState(cache, mask, state.positions + 1)

    def select(self, state: TorchState, rows: Integers) -> TorchState:
        """See `Engine.select`."""
        with self._running():
            indices = self._tensor(rows)
            cache = _fork(state.cache)
            cache.batch_select_indices(indices)
            return TorchState(cache, state.mask[indices], state.positions[indices])

    def score(self, prefix: Floats, tokens: Integers, mask: Booleans) -> Floats:
        """See `Engine.score`; the prefix must hold at least one vector. Rows at padding mean nothing."""
        with self._running():
            inputs, full = self._prompt(prefix, tokens, mask)
            length = tokens.shape[1]
            logits = self._forward(None, full, _positions(full), inputs_embeds=inputs, logits_to_keep=length + 1)
            # A token's predecessor is the last real one: the first token of a padded prompt follows the prefix.
            source = _last_real(full)[:, -length - 1 : -1] - (prefix.shape[1] - 1)
            return _numpy(logits.gather(1, source[:, :, None].expand(-1, -1, logits.shape[-1])))

    def _prompt(self, prefix: Floats, tokens: Integers, mask: Booleans) -> tuple[torch.Tensor, torch.Tensor]:
        """Input vectors [batch, prefix_length + length, width] and the mask over them."""
        embedded = self.model.get_input_embeddings()(self._tensor(tokens))
        inputs = torch.cat([self._tensor(prefix).to(embedded.dtype), embedded], dim=1)
        return inputs, torch.nn.functional.pad(self._tensor(mask), (prefix.shape[1], 0), value=True)

    def _forward(
        self, cache: DynamicCache | None, mask: torch.Tensor, positions: torch.Tensor, **inputs: torch.Tensor | int
    ) -> torch.Tensor:
        cached = {} if cache is None else {self._cache_name: cache}
        output = self.model(
            attention_mask=mask.long(), position_ids=positions, use_cache=cache is not None, **cached, **inputs
        )
        logits: torch.Tensor = output.logits
        return logits

    def _tensor(self, values: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.tensor(values, device=self.model.device)

    @contextmanager
    def _running(self) -> Iterator[None]:
        kind, dtype = self.model.device.type, self.autocast
        with torch.inference_mode(), torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            yield


class TorchEngine(TorchLanguageModel):
    """An `Engine` over a `PrefixCaptioner`, moved to `device` if one is given."""

    def __init__(
        self,
        network: PrefixCaptioner,
        device: str | torch.device | None = None,
        autocast: torch.dtype | None = None,
        text_tower: Path | None = None,
    ) -> None:
        """`text_tower`: the file of its weights, loaded when it is first needed."""
        self.network = network.eval() if device is None else network.to(device).eval()
        super().__init__(network.language_model, autocast)
        self._text_tower_file, self._loading = text_tower, threading.Lock()
        self._text_tower: torch.nn.Module | None = None

    def encode(self, pixels: Floats) -> Encoded:
        """See `Engine.encode`."""
        with self._running():
            features = self.network.encoder.trunk(self._tensor(pixels))
            prefix, label_logits = self.network.heads(features)
            embedding = features if self.network.config.text_tower else None
            labels, embedded = (None if each is None else _numpy(each) for each in (label_logits, embedding))
            return Encoded(_numpy(prefix), labels, embedded)

    def embed_texts(self, tokens: Integers) -> Floats | None:
        """See `Engine.embed_texts`. Raises ModelError for a tower's file that does not fit."""
        from rucap.network.text_tower import load_text_tower, text_embeddings

        config = self.network.config.text_tower
        if self._text_tower_file is None or config is None:
            return None
        with self._loading:
            if self._text_tower is None:
                self._text_tower = load_text_tower(config, self._text_tower_file).to(self.model.device)
        with self._running():
            return _numpy(text_embeddings(self._text_tower, self._tensor(tokens)))


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """The positions of real tokens, counted without the padding; padding takes some position that exists."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _last_real(mask: torch.Tensor) -> torch.Tensor:
    """[batch, length]: for each place the index of the last real token up to it."""
    places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    return places.where(mask, 0).cummax(dim=1).values


def _fork(cache: DynamicCache) -> DynamicCache:
    """A cache that grows apart from `cache`. Its layers replace their tensors and never write into them."""
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers]
    return fork


def _numpy(tensor: torch.Tensor) -> Floats:
    return tensor.float().cpu().numpy()
