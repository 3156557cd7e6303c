"""Training examples: what each step sees, as a pure function of the seed and the step's number.

So a run that was killed goes on with exactly the examples that it had not yet seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rucap.data.records import Record
from rucap.model import prompts
from rucap.model.config import PromptsConfig
from rucap.model.hints import Hints
from rucap.model.tokenizer import Tokenizer
from rucap.training.config import StageConfig
from rucap.training.features import FeatureCache
from rucap.training.sequences import Text, caption_text, question_text
from rucap.training.views import names_a_side, view_of

BUCKET = 8
"""Batches of photos that are sorted by the length of their texts at a time."""


@dataclass(frozen=True)
class Writer:
    """What turns texts of a model into tokens."""

    tokenizer: Tokenizer
    prompts: PromptsConfig
    hints: Hints | None

    def hint_tokens(self, label_logits: np.ndarray) -> list[list[int]]:
        """The hint tokens of each photo, for label logits [batch, labels]."""
        if self.hints is None:
            return [[] for _ in label_logits]
        texts = self.hints.texts(label_logits.astype(np.float32))
        return [prompts.hint_tokens(self.tokenizer, self.prompts, text) for text in texts]


@dataclass(frozen=True)
class Photo:
    """A photo of the data set, by the digest of its content."""

    digest: str
    record: Record


@dataclass(frozen=True)
class Example:
    """One view of one photo with its texts."""

    photo: int
    features: np.ndarray
    hints: Sequence[int]
    texts: Sequence[Text]


@dataclass(frozen=True)
class Examples(Dataset[Example]):
    """`epochs` shuffled passes over the photos, one example an index."""

    photos: Sequence[Photo]
    cache: FeatureCache
    writer: Writer
    stage: StageConfig
    views: int
    seed: int

    def __len__(self) -> int:
        return round(self.stage.epochs * len(self.photos))

    def __getitem__(self, index: int) -> Example:
        epoch, place = divmod(index, len(self.photos))
        photo = int(self._order(epoch)[place])
        random = np.random.default_rng([self.seed, epoch, place])
        digest, record = self.photos[photo].digest, self.photos[photo].record
        view = int(random.integers(self.views))
        features, labels = self.cache.read([digest], [view])
        hidden = random.random() < self.stage.hint_dropout
        hints = [] if hidden else self.writer.hint_tokens(labels)[0]
        mirrored = view_of(view, digest).mirrored
        return Example(photo, features[0], hints, self._texts(record, mirrored, random))

    def _order(self, epoch: int) -> np.ndarray:
        return _bucketed_order(self._sizes, self.stage.batch, (self.seed, epoch))

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """How long each photo's texts are together, in characters."""
        return tuple(
            sum(map(len, record.captions)) + sum(len(item.question) + len(item.answer) for item in record.questions)
            for record in (photo.record for photo in self.photos)
        )

    def _texts(self, record: Record, mirrored: bool, random: np.random.Generator) -> list[Text]:
        tokenizer, forms = self.writer.tokenizer, self.writer.prompts
        plain, weights = self.stage.plain_prompt, (self.stage.question_weight, self.stage.answer_weight)
        texts = [
            caption_text(tokenizer, forms, caption, bool(random.random() < plain))
            for caption in record.captions
            if not (mirrored and names_a_side(caption))
        ]
        for item in record.questions:
            if not (mirrored and names_a_side(item.question + " " + item.answer)):
                texts.append(question_text(tokenizer, forms, item.question, item.answer, weights))
        return texts


@lru_cache(maxsize=2)
def _bucketed_order(sizes: tuple[int, ...], batch: int, seed: tuple[int, int]) -> np.ndarray:
    """A shuffled order of photos; those of a batch have texts of like length, so that little is padding."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(sizes))
    batches = []
    for start in range(0, len(order), BUCKET * batch):
        bucket = order[start : start + BUCKET * batch]
        bucket = bucket[np.argsort(np.asarray(sizes)[bucket], kind="stable")]
        batches += [bucket[first : first + batch] for first in range(0, len(bucket), batch)]
    last = [batches.pop()] if len(order) % batch else []
    return np.concatenate([batches[number] for number in random.permutation(len(batches))] + last)


def stack_features(examples: Sequence[Example]) -> Tensor:
    """The features of a batch, [batch, *shape] float32."""
    return torch.from_numpy(np.stack([example.features for example in examples]).astype(np.float32))
