"""Models known by name, as a table: `models.json` beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from rucap.model.config import from_dict


@dataclass(frozen=True)
class NamedModel:
    """One row of the table."""

    name: str
    summary: str
    languages: tuple[str, ...]
    megabytes: int
    """How much there is to fetch; 0 for a model inside the package."""
    licence: str
    sources: dict[str, str]
    """Part of the model -> hub id; empty for a model inside the package."""
    checkpoint: str = ""
    """The file of the captioner's weights among those of its hub id."""


@cache
def named_models() -> dict[str, NamedModel]:
    """The table, by name."""
    text = resources.files("rucap.model").joinpath("models.json").read_text(encoding="utf-8")
    rows = (from_dict(NamedModel, row, f"models.json[{index}]") for index, row in enumerate(json.loads(text)))
    return {row.name: row for row in rows}
