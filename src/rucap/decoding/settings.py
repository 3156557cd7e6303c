"""What a caller may ask of decoding, checked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rucap.engines.protocol import Booleans
from rucap.errors import OptionError


@dataclass(frozen=True)
class GenerationSettings:
    """How to write. Raises OptionError naming the field when a value, or a combination of them, has no meaning."""

    end_tokens: tuple[int, ...]
    """Each of these ends a sequence; none is part of a hypothesis's tokens. May be empty where `stops` is given."""
    max_tokens: int = 40
    """Steps at most, the end token's among them."""
    min_tokens: int = 0
    """No end token before so many others."""
    beams: int = 1
    """Sequences kept at each step by beam search; 1 is greedy."""
    hypotheses: int = 1
    """Sequences returned for each photo: of the beams, or drawn independently when sampling."""
    length_penalty: float = 0.0
    """Hypotheses are ranked by log-probability / length ** length_penalty; above 0 favours longer ones."""
    early_stopping: bool = False
    """Beam search stops at `beams` finished hypotheses, even where a better one could follow."""
    sample: bool = False
    """Draw each token from the model's distribution instead of searching for the likeliest sequence."""
    temperature: float = 1.0
    top_k: int = 0
    """Draw among so many likeliest tokens; 0 for no limit."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens that hold this share of the probability (Holtzman et al., 2020)."""
    seed: int = 0
    no_repeat_ngram: int = 0
    """No n-gram of this length is written twice; 0 for no limit."""
    banned: tuple[tuple[int, ...], ...] = ()
    """Token sequences that are never written."""
    suppressed: tuple[int, ...] = ()
    """Tokens that are never written."""
    begin: tuple[int, ...] = ()
    """Tokens that every sequence begins with, whatever other constraints say."""
    min_words: int = 0
    """No end token before so many words have begun."""
    max_words: int | None = None
    """No word begins after so many; the last may still be finished."""
    word_starts: Booleans | None = field(default=None, compare=False, repr=False)
    """[vocabulary]: True where a token begins a new word. Needed for limits on words."""
    stops: Callable[[Sequence[int]], bool] | None = field(default=None, compare=False, repr=False)
    """Called with a sequence's tokens after each new one: True ends it there, with that token kept."""

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            if getattr(self, name) < lowest:
                raise OptionError(f"{name} is {getattr(self, name)}: give {lowest} or more")
        if not self.end_tokens and self.stops is None:
            raise OptionError("end_tokens is empty: name a token that ends a sequence")
        if not self.temperature > 0:
            raise OptionError(f"temperature is {self.temperature}: give more than 0, or turn sampling off")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p is {self.top_p}: give more than 0 and at most 1")
        if self.sample and self.beams > 1:
            raise OptionError(f"sampling does not go with {self.beams} beams: give one of the two")
        if not self.sample and self.hypotheses > self.beams:
            raise OptionError(f"{self.hypotheses} hypotheses need as many beams (there are {self.beams}) or sampling")
        if self.min_tokens >= self.max_tokens:
            raise OptionError(f"min_tokens ({self.min_tokens}) leaves no room within max_tokens ({self.max_tokens})")
        if len(self.begin) >= self.max_tokens:
            raise OptionError(f"the forced begin ({len(self.begin)} tokens) fills max_tokens ({self.max_tokens})")
        if set(self.begin) & set(self.end_tokens):
            raise OptionError("the forced begin holds an end token: leave it out")
        if not all(self.banned):
            raise OptionError("a banned sequence is empty: leave it out")
        if self.max_words is not None and self.max_words < max(1, self.min_words):
            raise OptionError(f"max_words is {self.max_words}: give {max(1, self.min_words)} or more")
        if (self.min_words or self.max_words is not None) and self.word_starts is None:
            raise OptionError("limits on words need word_starts: say which tokens begin a word")


_LOWEST = {
    "max_tokens": 1,
    "min_tokens": 0,
    "beams": 1,
    "hypotheses": 1,
    "top_k": 0,
    "seed": 0,
    "no_repeat_ngram": 0,
    "min_words": 0,
}
