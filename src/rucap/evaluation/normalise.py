"""The one normalisation of text that every metric shares."""

from __future__ import annotations

import re
import unicodedata

_STRESS = re.compile(r"[\u0300-\u036f]")
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Lower case, ё = е, stress marks dropped, all that is no letter or digit a space: words apart by one space.

    A hyphen is punctuation like any other, so «коричнево-белая» becomes two words.
    """
    composed = _STRESS.sub("", unicodedata.normalize("NFC", text))
    return _NOT_WORD.sub(" ", composed.lower().replace("ё", "е")).strip()
