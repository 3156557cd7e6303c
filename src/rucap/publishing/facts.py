"""What a model's author says of it for its card: `card` in config.json. All of it is optional; nothing is made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rucap.model.config import ModelConfig, from_dict

Task = Literal["captions", "open", "yes_no"]


@dataclass(frozen=True)
class TrainingData:
    """A data set that the model was trained on."""

    name: str
    about: str = ""
    terms: str = ""
    """On which terms its photos and texts may be used."""
    hub_id: str = ""
    """Of the data set on the hub, where it is there."""


@dataclass(frozen=True)
class MeasuredScore:
    """One number that was measured, as `rucap evaluate --json` gives it."""

    data: str
    """The data set's name."""
    split: str
    metric: str
    """The score's name there: `cider`, `bleu4`, `chrf`, `rouge_l`; of answers `exact`, `f1`."""
    value: float
    task: Task = "captions"
    """Captions, or answers to open or to yes/no questions."""


@dataclass(frozen=True)
class CardFacts:
    """All of `card`, in the model's own language where it is prose."""

    summary: str = ""
    """What the model is, in a sentence or two."""
    licence: str = ""
    """As the hub names it: `mit`, `apache-2.0`, `cc-by-nc-4.0`, ... or `other`."""
    licence_name: str = ""
    """What `other` stands for."""
    licence_link: str = ""
    """A URL, or the name of a file beside config.json."""
    sees: tuple[str, ...] = ()
    """What it describes well, a line each."""
    misses: tuple[str, ...] = ()
    """What it does not see or gets wrong, a line each."""
    data: tuple[TrainingData, ...] = ()
    scores: tuple[MeasuredScore, ...] = ()
    """Of these very weights: training further must leave them out."""
    measured: str = ""
    """How the scores were measured: precision, beams, version, date."""
    sources: dict[str, str] = field(default_factory=dict)
    """Part of the model -> hub id or name of what it was made from."""
    tags: tuple[str, ...] = ()
    """Further tags for the hub's search."""


def card_facts(config: ModelConfig) -> CardFacts:
    """The facts in a model's configuration. Raises ModelError naming the field at fault."""
    return from_dict(CardFacts, config.card, "config.json: card")
