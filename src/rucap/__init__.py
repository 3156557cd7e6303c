"""Descriptions of photos in Russian, offline.

    from rucap import Captioner
    Captioner().caption("photo.jpg").text

Names are imported when they are first used: `import rucap` itself loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rucap.captioner import Captioner
    from rucap.errors import DataError, ImageError, ModelError, OptionError, QuestionError, RucapError
    from rucap.images import Limits
    from rucap.results import Answer, Caption, Label, Ranking, Score

__all__ = [
    "Answer",
    "Caption",
    "Captioner",
    "DataError",
    "ImageError",
    "Label",
    "Limits",
    "ModelError",
    "OptionError",
    "QuestionError",
    "Ranking",
    "RucapError",
    "Score",
]

_HOMES = {"Captioner": "captioner", "Limits": "images"} | dict.fromkeys(
    ("Answer", "Caption", "Label", "Ranking", "Score"), "results"
)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("rucap")
    if name not in __all__:
        raise AttributeError(f"module 'rucap' has no attribute {name!r}")
    return getattr(import_module(f"rucap.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
