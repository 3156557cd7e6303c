"""Text rules: how text is fed to a model, how what it wrote becomes a clean sentence, which questions it takes.

What differs between languages is data (`RULES`). Nothing here knows of tokens, prompts or photos.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rucap.errors import QuestionError

MAX_QUESTION_CHARACTERS = 300
MAX_REPEATED_WORDS = 12
"""The longest run of words that is looked for again right after itself: a clause."""

_SENTENCE_END = re.compile(r"[.!?…]+(?=\s|$|[A-ZА-ЯЁ])")
_LIST_NUMBER = re.compile(r"^\s*\d+[.)]\s+")
_EDGE_START = " \t.,;:!?…-–—)»"
_EDGE_END = " \t.,;:!?…-–—(«"
_PAIRS = (("«", "»"), ("(", ")"), ("“", "”"))


@dataclass(frozen=True)
class Rules:
    """What the clean-up must know of a language."""

    language: str
    letters: re.Pattern[str]
    """Matches a letter of its alphabet."""
    connectives: frozenset[str]
    """Words that join two things: "собака и собака" is a repeat."""
    dangling: frozenset[str]
    """Words and pairs of words that cannot end a sentence: prepositions, conjunctions, articles."""
    modifier: re.Pattern[str]
    """Matches words that wait for a noun, as far as their form tells."""
    abbreviations: frozenset[str]
    """Words whose full stop does not end a sentence, without it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


RULES = {
    "ru": Rules(
        language="Russian",
        letters=re.compile("[А-Яа-яЁё]"),
        connectives=_words("и а или"),
        dangling=_words(
            "в во на с со к ко у о об обо от ото до из изо по под подо над за при про для без через между среди перед"
            " возле около из-за из-под и а но или что чтобы как когда где который которая которое которые которого"
            " которой которых которую не ни то"
        )
        | {"на фоне"},
        modifier=re.compile(r"\w{2,}(ого|его|ому|ему|ую|юю|ый|ая|яя|ые|ых|ыми|ым)$"),
        abbreviations=_words("г гг ул им т д п др пр см мм км м кг гр руб св стр рис тыс млн млрд н э"),
    ),
    "en": Rules(
        language="English",
        letters=re.compile("[A-Za-z]"),
        connectives=_words("and or"),
        dangling=_words(
            "a an the of in on at to by with from into onto over under for and or but that which who whose while as"
            " its their his her is are"
        ),
        modifier=re.compile(r"(?!)"),
        abbreviations=_words("mr mrs ms dr st vs etc no"),
    ),
}


def normalised(text: str) -> str:
    """`text` in Unicode's composed form (a "й" of two characters becomes one), spaces single, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def feeding_form(text: str) -> str:
    """`text` normalised, with its first letter in lower case; abbreviations ("США бегут") stay as they are.

    A word that has another capital is an abbreviation or a name written so on purpose. A sentence's first word then
    has the same tokens as within a sentence; `capitalised` is the way back.
    """
    text = normalised(text)
    first = text.partition(" ")[0]
    return text if any(letter.isupper() for letter in first[1:]) else text[:1].lower() + text[1:]


def capitalised(text: str) -> str:
    """`text` with its first letter in upper case, past an opening quotation mark."""
    for index, letter in enumerate(text):
        if letter.isalnum():
            return text[:index] + letter.upper() + text[index + 1 :]
    return text


def clean_caption(text: str, language: str, finished: bool = True) -> str:
    """A generated caption as a clean sentence: capital letter, no full stop, one sentence, nothing said twice.

    `finished` is False where the model was cut off before it ended by itself: then the last word may be half a word.
    """
    rules = RULES[language]
    words = _without_dangling(clean_answer(text, language, finished).split(), rules.dangling)
    return capitalised(" ".join(words).rstrip(_EDGE_END))


def clean_answer(text: str, language: str, finished: bool = True) -> str:
    """A generated answer: as `clean_caption`, with its first letter as the model wrote it and any last word ("без")."""
    rules = RULES[language]
    lines = [line for line in re.split(r"[\n\r\x0b\x0c]", re.sub("[\0\ufffd]", "", text)) if line.strip()]
    if not lines:
        return ""
    line = _LIST_NUMBER.sub("", lines[0]).lstrip(_EDGE_START)
    sentence = _first_sentence(line, rules)
    finished = finished or len(lines) > 1 or sentence != line
    words = _without_repeats(_spaced(normalised(sentence)).split(), rules)
    if not finished:
        words = _without_dangling(words[:-1] or words, rules.dangling, rules.modifier)
    return _matched(" ".join(words)).lstrip(_EDGE_START).rstrip(_EDGE_END)


def repeats(items: Sequence[Hashable], shortest: int = 3) -> bool:
    """Whether a sequence of words or tokens ends in a loop: its last run was said right before, too.

    A run counts from `shortest` items on, or from any length when it is said three times. A rule to stop writing by.
    """
    items = items[-3 * MAX_REPEATED_WORDS :]
    for length in range(1, len(items) // 2 + 1):
        last = items[-length:]
        if last == items[-2 * length : -length] and (length >= shortest or last == items[-3 * length : -2 * length]):
            return True
    return False


def checked_question(text: str, language: str) -> str:
    """The question, normalised and with its question mark. Raises QuestionError saying what is wrong with it."""
    question = normalised(text)
    if not question:
        raise QuestionError("the question is empty: ask about something in the photo")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise QuestionError(f"the question has {len(question)} characters: ask in at most {MAX_QUESTION_CHARACTERS}")
    if not RULES[language].letters.search(question):
        raise QuestionError(
            f"the question {question!r} is not in {RULES[language].language}: this model knows no other"
        )
    return question.rstrip(" .!?…") + "?"


def _first_sentence(text: str, rules: Rules) -> str:
    for end in _SENTENCE_END.finditer(text):
        before = text[: end.start()]
        if any(before.count(opening) > before.count(closing) for opening, closing in _PAIRS):
            continue
        word = re.split(r"[\s.]", before)[-1]
        abbreviated = end[0] == "." and (len(word) == 1 or word.lower() in rules.abbreviations)
        if not (abbreviated and text[end.end() :].strip()):
            return before
    return text


def _spaced(text: str) -> str:
    text = re.sub(r"\s+([,.;:!?…»)])", r"\1", text)
    text = re.sub(r"([«(])\s+", r"\1", text)
    text = re.sub(r"([,;:])(\s*[,;:])+", r"\1", text)
    return re.sub(r"([,;])(?=[^\W\d_])", r"\1 ", text)


def _matched(text: str) -> str:
    """Drops quotation marks and brackets of a kind that do not pair up."""
    for opening, closing in _PAIRS:
        if text.count(opening) != text.count(closing):
            text = text.replace(opening, "").replace(closing, "")
    return text if text.count('"') % 2 == 0 else text.replace('"', "")


def _keys(words: Sequence[str]) -> list[str]:
    return [word.strip('.,;:!?…«»()"“”').lower() for word in words]


def _without_repeats(words: list[str], rules: Rules) -> list[str]:
    words = _without_repeated_clauses(words)
    start = 0
    while start < len(words):
        for length in range(min(MAX_REPEATED_WORDS, len(words) - start), 0, -1):
            after = start + length
            # "собака и собака поменьше" are two dogs, "собака и собака" at the end is one;
            # "белые и белые цветы" are white flowers
            joined = after < len(words) and words[after] in rules.connectives
            alike = length > 1 or after + 2 == len(words) or rules.modifier.match(words[start].lower())
            joined = joined and bool(alike)
            if _same(words[start:after], words[after : after + length]):
                del words[start:after]
            elif joined and _same(words[start:after], words[after + 1 : after + 1 + length]):
                del words[start : after + 1]
            else:
                continue
            start = max(start - MAX_REPEATED_WORDS, 0) - 1  # what is left may repeat what stands before it
            break
        start += 1
    return words


def _same(first: list[str], second: list[str]) -> bool:
    """Whether two runs are one text, whatever follows each: "ногу на" is not "ногу, на"."""
    if len(first) != len(second) or _keys(first[-1:]) != _keys(second[-1:]):
        return False
    return [word.lower() for word in first[:-1]] == [word.lower() for word in second[:-1]]


def _without_repeated_clauses(words: list[str]) -> list[str]:
    """Drops a clause between commas that was said before, further back than right before."""
    clauses: list[list[str]] = [[]]
    for word in words:
        clauses[-1].append(word)
        if word.endswith((",", ";")):
            clauses.append([])
    kept: list[list[str]] = []
    for clause in clauses:
        if len(clause) < 2 or _keys(clause) not in map(_keys, kept):
            kept.append(clause)
    return [word for clause in kept for word in clause]


def _without_dangling(words: list[str], dangling: frozenset[str], modifier: re.Pattern[str] | None = None) -> list[str]:
    keys = _keys(words)
    while len(words) > 1:
        hangs = not keys[-1] or keys[-1] in dangling or " ".join(keys[-2:]) in dangling
        letter = len(words[-1]) == 1 and words[-1].isupper()  # "буква А"
        if letter or not (hangs or (modifier and modifier.match(keys[-1]))):
            break
        words, keys = words[:-1], keys[:-1]
    return words
