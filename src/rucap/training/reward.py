"""The reward stage: sampled captions are made likelier by how far their CIDEr-D is above that of the photo's others.

Self-critical training (Rennie et al., arXiv:1612.00563) with the mean of a photo's other samples as its baseline
(Luo, arXiv:2003.09971). The data's own texts stay in the loss with a small weight, so that questions and levels of
detail are not forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch.nn import functional

from rucap.decoding import GenerationSettings
from rucap.evaluation.cider import CiderReward
from rucap.model import prompts
from rucap.network.prefix_captioner import PrefixCaptioner
from rucap.training.config import StageConfig
from rucap.training.dev import generation_settings, write_texts
from rucap.training.examples import Example, Photo, Writer, stack_features
from rucap.training.sequences import Text, continued, hidden_states, pack, token_logits

LAST = " конец"
"""A word after each text: CIDEr-D then sees where a caption ends, and unfinished ones gain nothing by breaking off."""


@dataclass(frozen=True)
class Reward:
    """What the stage needs beside the network."""

    cider: CiderReward
    writer: Writer
    stage: StageConfig
    settings: GenerationSettings


def prepare_reward(network: PrefixCaptioner, photos: Sequence[Photo], writer: Writer, stage: StageConfig) -> Reward:
    """Counts the n-grams of all references of the training photos."""
    cider = CiderReward([[caption + LAST for caption in photo.record.captions] for photo in photos])
    settings = replace(generation_settings(writer, network), sample=True, hypotheses=stage.samples, max_tokens=24)
    return Reward(cider, writer, stage, settings)


def advantages(rewards: Sequence[float]) -> list[float]:
    """Each sample's reward above the mean of the others of its photo."""
    total, count = sum(rewards), len(rewards)
    return [reward - (total - reward) / (count - 1) for reward in rewards]


def reward_loss(
    network: PrefixCaptioner, examples: Sequence[Example], reward: Reward, step: int, longest: int
) -> Tensor:
    """The loss of a batch: of the samples drawn now, and with its small weight of the data's own texts."""
    stage = reward.stage
    sampled = _sample(network, examples, reward, step)
    rows = [(example.hints, (*texts, *example.texts)) for example, texts in zip(examples, sampled, strict=True)]
    device = next(network.parameters()).device
    batch = pack(rows, longest).to(device)
    states = hidden_states(network.language_model, network.prefix(stack_features(examples).to(device)), batch)
    chosen = batch.weights != 0
    logits = token_logits(network.language_model, states, chosen).float()
    losses = functional.cross_entropy(logits, batch.tokens[chosen], reduction="none")
    weights, of_samples = batch.weights[chosen], batch.segments[chosen] <= stage.samples
    rewarded = (losses * weights)[of_samples].sum() / of_samples.sum()
    own = (losses * weights)[~of_samples].sum() / weights[~of_samples].sum()
    return rewarded + stage.likelihood_weight * own


def _sample(network: PrefixCaptioner, examples: Sequence[Example], reward: Reward, step: int) -> list[list[Text]]:
    """Sampled captions of each example, their tokens weighted by their advantages."""
    tokenizer = reward.writer.tokenizer
    form = prompts.caption_tokens(tokenizer, reward.writer.prompts)
    features = np.stack([example.features for example in examples])
    settings = replace(reward.settings, seed=step)
    network.eval()
    prompted = [[*example.hints, *form] for example in examples]
    found = write_texts(network, features, prompted, settings, tokenizer.pad_id)
    network.train()
    made = []
    for example, samples in zip(examples, found, strict=True):
        finished = [len(tokens) < settings.max_tokens for tokens in samples]
        captions = [
            tokenizer.decode(tokens) + (LAST if done else "") for tokens, done in zip(samples, finished, strict=True)
        ]
        of_photo = advantages(reward.cider.reward(example.photo, captions))
        texts = [continued(form, tokens, tokenizer) for tokens in samples]
        made.append(
            [
                Text(text.tokens, tuple(advantage * weight for weight in text.weights))
                for text, advantage in zip(texts, of_photo, strict=True)
            ]
        )
    return made
