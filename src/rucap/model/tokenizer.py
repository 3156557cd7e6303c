"""Text to tokens and back, over the `tokenizers` library; the file is a Hugging Face `tokenizer.json`.

What a user writes can never become a special token: `encode` reads `<answer>` as eight characters. Only a template of
the model's own configuration may hold special tokens, and only `encode_prompt` takes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers

from rucap.errors import ModelError

MAX_FILE_BYTES = 64 * 2**20
"""The largest `tokenizer.json` that is read: twice that of the largest multilingual vocabularies."""

WORD_START_MARKS = ("▁", "Ġ")
"""How a token says that it begins a word: in SentencePiece's vocabularies (Metaspace), in GPT-2's byte-level ones."""


class Tokenizer:
    """A tokenizer of subwords with special tokens. Immutable, hence safe to share between threads."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        """Takes a copy of `inner`, without its truncation, padding and automatic special tokens."""
        self._inner = tokenizers.Tokenizer.from_str(inner.to_str())
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = True
        self._size = 1 + max(self._inner.get_vocab(with_added_tokens=True).values())
        added = self._inner.get_added_tokens_decoder()
        self._special = {token.content: index for index, token in added.items() if token.special}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Reads `tokenizer.json`. Raises ModelError as `read_tokenizer`."""
        return cls(read_tokenizer(path))

    def __len__(self) -> int:
        """The number of token ids: the largest id and one."""
        return self._size

    @property
    def special_tokens(self) -> frozenset[str]:
        """The names of the special tokens."""
        return frozenset(self._special)

    def id_of(self, token: str) -> int:
        """The id of a token by its name (`<end>`, `.`). Raises ModelError when the vocabulary lacks it."""
        index = self._special.get(token, self._inner.token_to_id(token))
        if index is None:
            raise ModelError(
                f"the tokenizer has no token {token!r}; tokenizer.json and config.json do not belong together"
            )
        return index

    @property
    def pad_id(self) -> int:
        """The id that fills what a mask hides: `<pad>`, or 0 where the vocabulary has none."""
        return self._special.get("<pad>", 0)

    def encode(self, text: str) -> list[int]:
        """The tokens of ordinary text; names of special tokens in it are plain characters."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [list(found.ids) for found in self._inner.encode_batch(list(texts), add_special_tokens=False)]

    def encode_prompt(self, template: str, **fields: str) -> list[int]:
        """The tokens of a template such as `<question>{question}<answer>`.

        Special tokens written in the template become their ids; the values of its fields are ordinary text. Each run
        between special tokens is encoded on its own, as if it were a whole text.
        """
        tokens: list[int] = []
        for piece in self._split.split(template) if self._split else [template]:
            if piece in self._special:
                tokens.append(self._special[piece])
            elif text := _fill(piece, fields):
                tokens.extend(self.encode(text))
        return tokens

    def decode(self, tokens: Iterable[int], special: bool = False) -> str:
        """The text of tokens, with the names of the special ones if `special`."""
        return str(self._inner.decode([int(token) for token in tokens], skip_special_tokens=not special))

    @cached_property
    def word_starts(self) -> npt.NDArray[np.bool_]:
        """[vocabulary]: True at the tokens that begin a word after a space."""
        starts = np.zeros(len(self), dtype=bool)
        for token, index in self._inner.get_vocab(with_added_tokens=False).items():
            starts[index] = token.startswith(WORD_START_MARKS)
        starts.flags.writeable = False
        return starts


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer of a file. Raises ModelError when it is missing, too large or not of its form."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path}: {size} bytes are too many for a tokenizer (at most {MAX_FILE_BYTES})")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; a model folder holds {path.name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from None


def _fill(piece: str, fields: dict[str, str]) -> str:
    """Puts fields in by name; unlike `str.format`, gives a template no way to reach into the values."""
    return re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), piece)
