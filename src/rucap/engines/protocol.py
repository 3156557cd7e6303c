"""What decoding and the captioner ask of an engine, whatever library runs beneath it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
State = Any
"""An engine's key/value cache of a batch of sequences; only the engine that made it looks inside."""
TEXTS = 64
"""Texts that a text tower reads at once: more are no faster, and memory grows with them."""


@dataclass(frozen=True)
class Encoded:
    """Encoded photos."""

    prefix: Floats
    """[batch, prefix_length, width]: pseudo-words in the language model's embedding space."""
    label_logits: Floats | None
    """[batch, labels]: the encoder's own classifier, for hints; None where the model has none."""

    embedding: Floats | None = None
    """[batch, width]: its CLIP embedding, not normalised; None where there are no texts to compare it with."""

    def take(self, rows: Integers) -> Encoded:
        """The photos at `rows`, in that order."""
        labels, embedding = (None if each is None else each[rows] for each in (self.label_logits, self.embedding))
        return Encoded(self.prefix[rows], labels, embedding)


class Engine(Protocol):
    """A loaded model. Safe to call from several threads: all that changes lives in the states."""

    def encode(self, pixels: Floats) -> Encoded:
        """Maps preprocessed photos, [batch, 3, height, width], to prefixes and label logits."""
        ...

    def embed_texts(self, tokens: Integers) -> Floats | None:
        """Maps texts [texts, length], see `ModelFolder.text_tokens`, to embeddings [texts, width], not normalised.

        None where there is no text tower to do it.
        """
        ...

    def start(self, prefix: Floats, tokens: Integers, mask: Booleans) -> tuple[Floats, State]:
        """Reads prompts: the prefix [batch, prefix_length, width], then tokens [batch, length] (length may be 0).

        `mask` [batch, length] is False at padding tokens, which are neither attended to nor counted in positions;
        the padding of a prompt precedes its tokens. Returns the logits of the next token, [batch, vocabulary], and
        the state.
        """
        ...

    def step(self, tokens: Integers, state: State) -> tuple[Floats, State]:
        """Appends one token to each sequence, [batch]; returns the next token's logits and the new state."""
        ...

    def select(self, state: State, rows: Integers) -> State:
        """A state of the sequences at `rows`: to reorder beams, to repeat or to drop sequences."""
        ...

    def score(self, prefix: Floats, tokens: Integers, mask: Booleans) -> Floats:
        """Logits at every token of `tokens` [batch, length]: [batch, length, vocabulary].

        Row t predicts token t (what the model says before it reads that token). `mask` as in `start`.
        """
        ...
