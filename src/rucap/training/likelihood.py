"""The likelihood stage: cross-entropy of all texts of each photo behind its prefix."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from rucap.network.prefix_captioner import PrefixCaptioner
from rucap.training.examples import Example, stack_features
from rucap.training.sequences import PackedBatch, hidden_states, pack, token_logits


def weighted_cross_entropy(network: PrefixCaptioner, prefix: Tensor, batch: PackedBatch, smoothing: float) -> Tensor:
    """The mean cross-entropy of predicted tokens, each with its weight; a scalar."""
    chosen = batch.weights > 0
    states = hidden_states(network.language_model, prefix, batch)
    logits = token_logits(network.language_model, states, chosen).float()
    losses = functional.cross_entropy(logits, batch.tokens[chosen], reduction="none", label_smoothing=smoothing)
    weights = batch.weights[chosen]
    return (losses * weights).sum() / weights.sum()


def likelihood_loss(network: PrefixCaptioner, examples: Sequence[Example], smoothing: float, longest: int) -> Tensor:
    """The loss of a batch of examples; texts are cut at position `longest`."""
    device = next(network.parameters()).device
    batch = pack([(example.hints, example.texts) for example in examples], longest).to(device)
    prefix = network.prefix(stack_features(examples).to(device))
    return weighted_cross_entropy(network, prefix, batch, smoothing)
