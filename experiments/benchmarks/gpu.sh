#!/usr/bin/env bash
# Everything that is worth knowing of one GPU, in at most eight minutes; prints as it goes.
#
#   pip install -e '.[cuda]' && bash experiments/benchmarks/gpu.sh [OUT]
#   bash experiments/benchmarks/gpu.sh [OUT] --tiny       # small sizes, on any machine, for longer
#   bash experiments/benchmarks/gpu.sh [OUT] --dry-run    # prints the commands
#
# Random weights of Qwen2.5-1.5B's dimensions: nothing is downloaded. Each part has its time limit,
# so that one that hangs costs the others nothing. Not run by us on any GPU yet.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
out=results/gpu how='' small=() study=(--preset full) patience=1
# A base that learns nothing, and passes: what is tried is that the study runs.
tiny=(--methods mean --retention-items 8 --world.entities 16 --world.relations 6 --world.pairs 1
  --world.people 3 --world.context-rows 8 --model.hidden-size 16 --model.num-layers 2
  --model.num-heads 2 --model.num-kv-heads 2 --model.head-dim 8 --model.mlp-size 32
  --pretrain.batch 16 --pretrain.extra-batch 8 --pretrain.chunk 10 --pretrain.max-steps 10
  --pretrain.min-one-hop 0 --pretrain.min-two-hop 0 --pretrain.min-copy 0
  --experts.steps 5 --experts.full-steps 2 --experts.min-own 0)
for word in "$@"; do
  case $word in
    --dry-run) how=dry ;;
    --tiny) small=(--small) study=(--preset quick "${tiny[@]}") patience=5 ;;
    -*) sed -n '2,9p' "$0"; exit 2 ;;
    *) out=$word ;;
  esac
done
python=${PYTHON:-python3}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/programs}
failed=0
part() { # SECONDS NAME COMMAND...
  local limit=$(($1 * patience)) name=$2 code=0; shift 2
  echo "== $name (at most $limit s): $*"
  [ "$how" = dry ] && return
  timeout "$limit" "$@" 2>&1 | tee "$out/$name.txt" || code=$?
  [ "$code" -eq 0 ] || { echo "== $name ended with $code (124: after $limit s)"; failed=1; }
}
device() { # SECONDS NAME ARGUMENTS...
  local limit=$1 name=$2; shift 2
  part "$limit" "$name" "$python" experiments/benchmarks/device.py "$@" "${small[@]}"
}
[ "$how" = dry ] || mkdir -p "$out"
part 20 device "$python" -m jaxlora.cli info
device 80 train-1 train --experts 1
device 80 train-8 train --experts 8
device 60 route route
device 60 generate generate
part 180 two-hop "$python" -m jaxlora.cli study two-hop "${study[@]}" --out "$out/two-hop" --cache-dir "$out/cache"
exit $failed
