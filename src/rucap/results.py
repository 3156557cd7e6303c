"""What a captioner gives back. Plain frozen data, without methods that compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Caption:
    """A caption of a photo."""

    text: str
    """A clean sentence: capital letter, no full stop. Empty in the rare case that the model wrote nothing.

    With stop="original" all that was written, as it is.
    """
    confidence: float | None
    """0 to 1, how likely the caption is right (calibrated on a dev split); None for a model without calibration."""
    log_probability: float
    """Natural logarithm of the probability of all its tokens."""
    alternatives: tuple[Caption, ...] = ()
    """The next best captions, each with other words; as many as were asked for and found, less this one."""


@dataclass(frozen=True)
class Answer:
    """An answer to a question about a photo."""

    question: str
    text: str
    confidence: float | None
    """As in `Caption`."""
    log_probability: float
    """As in `Caption`."""


@dataclass(frozen=True)
class Label:
    """One of the labels that a photo was compared with."""

    name: str
    probability: float
    """Among the labels given: they sum to 1. By the similarity of a SigLIP each label's own."""
    score: float
    """By likelihood, what the photo adds to the label's log-probability, in nats a token; above 0 it speaks for the
    label. By similarity, CLIP's logit: a scaled cosine."""


@dataclass(frozen=True)
class Ranking:
    """Labels from the likeliest to the least likely."""

    labels: tuple[Label, ...]
    method: Literal["similarity", "likelihood"] = "likelihood"
    """What the labels were ranked by."""

    @property
    def best(self) -> Label:
        """The likeliest label."""
        return self.labels[0]


@dataclass(frozen=True)
class Score:
    """How likely a model finds a text for a photo."""

    text: str
    log_probability: float
    """Natural logarithm of the probability of the text's tokens and the end."""
    log_probability_per_token: float
