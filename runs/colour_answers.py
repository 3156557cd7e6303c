"""Puts the answers to «Какого цвета …?» into one form, the question's own: «чёрного».

    python runs/colour_answers.py DATA.jsonl OUT.jsonl

The writers of the data mix «чёрного» with «чёрный», «чёрная», «чёрные», by habit and not by the photo; a model that
learns from both must guess the form. Only the train split is changed: what a model is measured on stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

QUESTION = re.compile(r"какого цвета\b", re.IGNORECASE)
NOMINATIVE = re.compile(r"(\w{2,})(ый|ий|ой|ая|яя|ое|ее|ые|ие)")
SOFT = "жшчщ"
"""Consonants that no о without stress follows: рыжего, not рыжого."""
HARD = "гкх"
"""Consonants that и follows in either declension: жёлтенькие, жёлтенького."""


def genitive(adjective: str) -> str:
    """«чёрная» -> «чёрного»; another word stays as it is."""
    if not (match := NOMINATIVE.fullmatch(adjective.rpartition("-")[2])):
        return adjective
    stem, ending = match.groups()
    is_soft = stem[-1] in SOFT or (ending[0] in "ияе" and stem[-1] not in HARD)
    return adjective[: -len(ending)] + ("его" if is_soft else "ого")


def answer_in_genitive(question: str, answer: str) -> str:
    """The answer in the question's form, where it is nothing but colours («белая и чёрная»)."""
    words = answer.split()
    made = [genitive(word) for word in words]
    is_other = any(word == new != "и" for word, new in zip(words, made, strict=True))
    return answer if is_other or not QUESTION.match(question) else " ".join(made)


def main() -> None:
    """Reads the arguments and writes the new file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    rows, changed = [], 0
    for line in arguments.data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        row["image"] = str((arguments.data.parent / row["image"]).resolve())
        for asked in row.get("questions", []) if row.get("split", "train") == "train" else []:
            before, asked["answer"] = asked["answer"], answer_in_genitive(asked["question"], asked["answer"])
            changed += before != asked["answer"]
        rows.append(json.dumps(row, ensure_ascii=False))
    partial = arguments.output.with_name(arguments.output.name + ".part")
    partial.write_text("\n".join(rows) + "\n", encoding="utf-8")
    partial.replace(arguments.output)
    print(f"{arguments.output}: {changed} answers changed")


if __name__ == "__main__":
    main()
