"""Encoded photos and prompts to written tokens, or to how likely given ones are.

It knows which tokens a model reads and how many fit; it knows nothing of photos, of text or of options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from rucap.decoding import GenerationSettings, Hypothesis, generate
from rucap.engines.protocol import Encoded, Engine
from rucap.errors import OptionError
from rucap.likelihood import Values, log_likelihoods
from rucap.model import prompts
from rucap.model.folder import ModelFolder


class Writer:
    """A model folder and its engine, as what writes after a photo."""

    def __init__(self, folder: ModelFolder, engine: Engine) -> None:
        self._folder, self._config, self._engine = folder, folder.config, engine

    @property
    def room(self) -> int:
        """Tokens that fit after the prefix, read and written."""
        return self._config.language_model.positions - self._config.mapper.prefix_length

    @cached_property
    def blank(self) -> Encoded:
        """A photo of nothing: all of the mean colour, without labels."""
        size = self._config.encoder.preprocessing.size
        return Encoded(self._engine.encode(np.zeros((1, 3, size, size), np.float32)).prefix, None)

    def write(
        self, encoded: Encoded, asked: Sequence[list[int]], settings: GenerationSettings, numbers: Sequence[int]
    ) -> list[list[Hypothesis]]:
        """Hypotheses after each photo's hints and the tokens `asked` of it, best first; at least one for each.

        `numbers` of the photos in the caller's list: see `generate`. Raises OptionError when nothing can be written.
        """
        rows = self._with_hints(encoded, asked, self._config.generation.max_tokens)
        left = self.room - max(map(len, rows))
        if left <= len(settings.begin):
            raise OptionError(f"no room is left to write in: this model reads and writes {self.room} tokens")
        tokens, mask = prompts.pad_left(rows, self._folder.tokenizer.pad_id)
        settings = dataclasses.replace(settings, max_tokens=min(settings.max_tokens, left))
        return generate(self._engine, encoded.prefix, tokens, mask, settings, numbers)

    def likelihoods(self, encoded: Encoded, captions: Sequence[Sequence[int]]) -> list[list[Values]]:
        """For each photo and each caption the log-probabilities of its tokens. Raises OptionError for one too long."""
        longest = max(map(len, captions))
        prompt = prompts.caption_tokens(self._folder.tokenizer, self._config.prompts)
        if len(prompt) + longest > self.room:
            raise OptionError(f"a text of {longest} tokens is too long: this model reads {self.room - len(prompt)}")
        rows = self._with_hints(encoded, [prompt] * len(encoded.prefix), longest)
        tokens, mask = prompts.pad_left(rows, self._folder.tokenizer.pad_id)
        return log_likelihoods(self._engine, encoded.prefix, tokens, mask, captions)

    def _with_hints(self, encoded: Encoded, asked: Sequence[list[int]], written: int) -> list[list[int]]:
        """Each photo's hints before `asked`, where they leave room for as many tokens as are to be `written`."""
        hints, tokenizer = self._folder.hints, self._folder.tokenizer
        if hints is None or encoded.label_logits is None:
            return list(asked)
        hinted = (prompts.hint_tokens(tokenizer, self._config.prompts, t) for t in hints.texts(encoded.label_logits))
        return [h + a if len(h) + len(a) + written <= self.room else a for h, a in zip(hinted, asked, strict=True)]
