"""Text rules: how text is fed to a model, and how what it wrote becomes a clean sentence.

Rules of a language are data (`RULES`). Nothing here knows of tokens, prompts or photos.
"""

from __future__ import annotations


def feeding_form(text: str) -> str:
    """`text` with its first letter in lower case, spaces single; abbreviations ("США бегут") stay as they are.

    A word that has another capital is an abbreviation or a name written so on purpose. A sentence's first word then
    has the same tokens as within a sentence; `capitalised` is the way back.
    """
    text = " ".join(text.split())
    first = text.partition(" ")[0]
    return text if any(letter.isupper() for letter in first[1:]) else text[:1].lower() + text[1:]


def capitalised(text: str) -> str:
    """`text` with its first letter in upper case, past an opening quotation mark."""
    for index, letter in enumerate(text):
        if letter.isalnum():
            return text[:index] + letter.upper() + text[index + 1 :]
    return text
