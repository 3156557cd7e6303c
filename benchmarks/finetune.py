"""What fine-tuning on 200 photos of one's own gives: CIDEr-D before and after, on photos held out.

The "shop" is the test split of a data set, of which the model has seen nothing, with the captions of one other writer,
whose manner is new to it, too: 200 photos to learn from, the others to measure on. The settings of fine-tuning were
chosen on dev.

python benchmarks/finetune.py ../shared/ruphotos/ruphotos.jsonl [--model tiny] [--split test] [--output DIR]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rucap import Captioner
from rucap.data.records import Record, read_records
from rucap.evaluation.cider import cider_d
from rucap.model.folder import find_model
from rucap.training.finetune import finetune
from rucap.training.progress import Progress

PHOTOS = 200
WRITER = slice(3, 5)
"""The captions by another writer than the training captions'."""


def score(model: Path, records: list[Record]) -> float:
    captions = Captioner(model, engine="torch").caption([record.image for record in records])
    return cider_d([caption.text for caption in captions], [record.captions[WRITER] for record in records])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    records = read_records(arguments.data, arguments.split)
    own, held_out = records[:PHOTOS], records[PHOTOS:]
    model = find_model(arguments.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output or Path(scratch) / "tuned"
        data = Path(scratch) / "shop.jsonl"
        rows = [{"image": str(record.image.resolve()), "captions": record.captions[WRITER]} for record in own]
        data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        before = score(model, held_out)
        begun = time.monotonic()
        finetune(model, data, folder, Path(scratch) / "cache", Progress())
        minutes = (time.monotonic() - begun) / 60
        after = score(folder, held_out)
    print("| photos | minutes | held out | CIDEr-D before | after | ratio |\n|---:|---:|---:|---:|---:|---:|")
    print(f"| {len(own)} | {minutes:.1f} | {len(held_out)} | {before:.1f} | {after:.1f} | {after / before:.2f} |")


if __name__ == "__main__":
    main()
