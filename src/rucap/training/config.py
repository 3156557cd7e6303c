"""A training run as data: what `rucap train CONFIG` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rucap.model.config import ModelConfig, read_as


@dataclass(frozen=True)
class StageConfig:
    """One stage: `likelihood` learns the texts, `reward` raises CIDEr-D of its own samples (Rennie et al., 2017)."""

    kind: Literal["likelihood", "reward"]
    epochs: float
    batch: int
    learning_rate: float
    encoder_rate: float = 0.0
    """The learning rate of the encoder's own last stages as a share of `learning_rate`; 0 leaves them as they are."""
    warmup: float = 0.03
    """The share of steps in which the learning rate rises to its full height; a cosine follows."""
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.1
    hint_dropout: float = 0.15
    """How often a photo's hints are hidden, so that the model can do without."""
    question_weight: float = 0.1
    """Weight of a question's own tokens in the loss; a caption's have 1."""
    answer_weight: float = 1.0
    """Weight of an answer's tokens: there are few of them beside the captions'."""
    plain_prompt: float = 0.5
    """How often a caption follows the plain prompt and not that of its level of detail."""
    average: float = 0.999
    """Decay of the moving average of the weights, which is what is evaluated and kept."""
    clip: float = 1.0
    samples: int = 5
    """Captions that the reward stage samples for each photo."""
    likelihood_weight: float = 0.2
    """Weight of the likelihood of the data's own texts beside the reward."""


@dataclass(frozen=True)
class TrainingConfig:
    """All of a training configuration."""

    data: tuple[str, ...]
    """jsonl files; relative paths start at the configuration's folder."""
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    labels: str = ""
    """The file of hint labels that is copied into the model folder."""
    vocabulary: int = 8000
    views: int = 1
    seed: int = 1
    evaluations: int = 10
    """How often a stage is evaluated on dev."""
    dev_photos: int = 500
    """Photos of each data set's dev split that are described at an evaluation."""


def read_training_config(path: Path) -> TrainingConfig:
    """Reads a training configuration. Raises ModelError naming the file, or the field at fault."""
    return read_as(TrainingConfig, path, "see configs/ for examples")
