"""How much a photo may cost before it is refused. This module knows numbers, not files or images."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rucap.errors import OptionError


@dataclass(frozen=True)
class Limits:
    """What a photo may cost. Raises OptionError unless every limit is positive."""

    max_bytes: int = 100_000_000
    """Bytes of the encoded photo, in a file, in memory or over the network."""
    max_pixels: int = 120_000_000
    """Width times height, read from the header before anything is decoded; the default lets 108-megapixel phones in."""
    timeout_seconds: float = 20.0
    """Seconds that a URL may take in all: name look-up, redirects and body together."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise OptionError(f"{limit.name}: must be more than 0, not {getattr(self, limit.name)}")


DEFAULT_LIMITS = Limits()
