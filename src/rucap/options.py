"""What a caller may ask of a captioner's writing, and how it becomes settings of decoding over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np

from rucap.decoding import GenerationSettings
from rucap.errors import OptionError
from rucap.model import prompts
from rucap.model.folder import ModelFolder
from rucap.model.sentence import repeats

Stop = Literal["sentence", "original"]
ORIGINAL_TOKENS = 67
"""That ClipCap's `generate2` writes at most (its `entry_length`)."""
Detail = Literal["short", "normal", "detailed"]
TOKENS_PER_WORD = 4
"""Room left for a word where a number of words is asked for; Russian takes two tokens a word of a small vocabulary."""


class WritingOptions(TypedDict, total=False):
    """How to write; what is left out is as the model's config.json says. `temperature`, `top_p` or `top_k` sample."""

    beams: int
    length_penalty: float
    """Texts are ranked by log-probability / length ** length_penalty; above 0 favours longer ones."""
    min_words: int
    max_words: int
    no_repeat_ngram: int
    """No run of so many tokens is written twice; 0 for no limit."""
    banned: Sequence[str]
    """Words or phrases that are never written, in the forms given."""
    temperature: float
    top_p: float
    top_k: int
    seed: int
    """The same seed draws the same texts for the same list of photos."""
    stop: Stop
    """`sentence`: a text ends at an end token, a sentence's end, a line break or a clause said again, whichever comes
    first, and comes back clean. `original`: to the token what the program writes that the model was published with,
    for comparison (see `original_settings`); no other option goes with it."""


class CaptionOptions(WritingOptions, total=False):
    """How to write captions."""

    num_captions: int
    """Captions wanted for each photo, each with other words: the best one and its `alternatives`."""
    detail: Detail | None
    """A level of detail that the model has learnt; None for its usual captions."""
    begin: str
    """How every caption begins, say "На фото"; at least a word more is written, unless `min_words` says otherwise."""


def generation_settings(
    folder: ModelFolder, options: WritingOptions, known: type[WritingOptions], count: int = 1, begin: str = ""
) -> GenerationSettings:
    """Settings for `count` texts a photo. Raises OptionError for options not in `known`, or without meaning."""
    names: frozenset[str] = vars(known)["__optional_keys__"]
    if unknown := sorted(set(options) - names):
        raise OptionError(f"unknown option {unknown[0]!r}; options are {', '.join(sorted(names))}")
    if (stop := options.get("stop", "sentence")) == "original":
        return original_settings(folder, options)
    if stop != "sentence":
        raise OptionError(f"stop {stop!r}: it is 'sentence' or 'original'")
    defaults, tokenizer = folder.config.generation, folder.tokenizer
    vocabulary = folder.config.language_model.vocabulary
    sample = any(name in options for name in ("temperature", "top_p", "top_k"))
    if count < 1:
        raise OptionError(f"num_captions is {count}: give 1 or more")
    beams = options.get("beams", 1 if sample else max(defaults.beams, count))
    begin_tokens = tuple(prompts.text_tokens(tokenizer, folder.config.prompts, begin)) if begin else ()
    begun = len(begin.split())
    min_words, max_words = options.get("min_words", begun and begun + 1), options.get("max_words")
    word_starts = np.zeros(vocabulary, dtype=bool)
    word_starts[: len(tokenizer)] = tokenizer.word_starts
    return GenerationSettings(
        end_tokens=tuple(tokenizer.id_of(token) for token in defaults.end_tokens),
        max_tokens=max(defaults.max_tokens, TOKENS_PER_WORD * max(min_words, max_words or 0)) + len(begin_tokens),
        beams=beams,
        hypotheses=count if sample else max(beams, count),  # texts that turn out the same, or empty, have stand-ins
        length_penalty=options.get("length_penalty", defaults.length_penalty),
        sample=sample,
        temperature=options.get("temperature", 1.0),
        top_k=options.get("top_k", 0),
        top_p=options.get("top_p", 1.0),
        seed=options.get("seed", 0),
        no_repeat_ngram=options.get("no_repeat_ngram", defaults.no_repeat_ngram),
        banned=prompts.banned_tokens(tokenizer, options.get("banned", ())),
        suppressed=(
            *(tokenizer.id_of(token) for token in defaults.suppressed_tokens),
            *range(len(tokenizer), vocabulary),
        ),
        begin=begin_tokens,
        min_words=min_words,
        max_words=max_words,
        word_starts=word_starts if min_words or max_words is not None else None,
        # A beam that loops is likely and would win if it need not end by itself; one alone can only be cut.
        stops=repeats if beams == 1 else None,
    )


def original_settings(folder: ModelFolder, options: WritingOptions) -> GenerationSettings:
    """ClipCap's `generate2`: the likeliest token each time (its top-p filter never drops that one), 67 at most.

    A text ends with the first token of the config's `original_stop`, which it keeps. Raises OptionError for a model
    that is not ClipCap's, and for any other option.
    """
    stop = folder.config.generation.original_stop
    if stop is None:
        raise OptionError("stop 'original': this model has no original; leave stop out")
    if others := sorted(set(options) - {"stop"}):
        raise OptionError(f"stop 'original' writes as the original does: leave out {others[0]}")
    last = folder.tokenizer.encode(stop)[0] if stop else None
    return GenerationSettings(end_tokens=(), max_tokens=ORIGINAL_TOKENS, stops=lambda written: written[-1] == last)
