#!/usr/bin/env bash
# From ../shared to the model in the package. Takes the folder with clones of the repositories whose photos `more` has
# (`python3 ../shared/ruphotos/more.py --list` names them). Run again, it goes on where it was stopped.
#
#   runs/tiny.sh CLONES
set -euo pipefail
cd "$(dirname "$0")/.."
shared=../shared
out=runs/out
export PATH="$PWD/.venv/bin:$PATH" # what the README's second command installs

# 1. The photos that are too many to lie in ../shared (five minutes). One that is missing is left out of the training.
mkdir -p $out/more
if [ ! -e $out/more/more.jsonl ]; then
  python $shared/ruphotos/more.py "${1:?give the folder with the clones}" $out/more || echo "some photos are missing" >&2
  cp $shared/ruphotos/more.jsonl $out/more/
fi

# 2. One form for the answers to learn from; train (hours; docs/training.md), write the graphs, fit the confidence on dev.
data=($shared/ruflickr8k/ruflickr8k.jsonl $shared/ruphotos/ruphotos.jsonl)
mkdir -p $out/data
for set in "${data[@]}" $out/more/more.jsonl; do
  python runs/colour_answers.py "$set" "$out/data/$(basename "$set")"
done
rucap train configs/tiny.json --output $out/tiny --cache $out/cache
rucap export $out/tiny "${data[@]}" | tee $out/export.txt
rucap calibrate $out/tiny "${data[@]}"

# 3. Score it, as it will run, on photos that none of the above has seen.
for set in "${data[@]}"; do
  name=$(basename "$set" .jsonl)
  rucap evaluate $out/tiny "$set" --split test --report $out/$name.html --markdown | tee $out/$name.md
done

# 4. Into the package: all but what only training needs.
bundled=src/rucap/bundled/tiny
rm -rf $bundled
mkdir -p $bundled/onnx
cp $out/tiny/{config.json,tokenizer.json,labels.tsv,model.safetensors} $bundled/
cp $out/tiny/onnx/*.int8.onnx $bundled/onnx/
du -sh $bundled
