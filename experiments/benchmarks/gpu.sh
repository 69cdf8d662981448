#!/usr/bin/env bash
# Everything that is worth knowing of one GPU, in at most eight minutes; prints as it goes.
#
#   pip install 'jaxlora[cuda]' && bash experiments/benchmarks/gpu.sh [OUT]
#
# Random weights of Qwen2.5-1.5B's dimensions: nothing is downloaded. Each part has its time limit,
# so that one that hangs costs the others nothing. Not run by us on any GPU yet.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
out=${1:-results/gpu}
mkdir -p "$out"
python=${PYTHON:-python3}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/programs}
part() { # SECONDS NAME COMMAND...
  local limit=$1 name=$2 code=0; shift 2
  echo "== $name"
  timeout "$limit" "$@" 2>&1 | tee "$out/$name.txt" || code=$?
  [ "$code" -eq 0 ] || echo "== $name ended with $code (124: after $limit s)"
}
part 20 device "$python" -m jaxlora.cli info
part 80 train-1 "$python" experiments/benchmarks/device.py train --experts 1
part 80 train-8 "$python" experiments/benchmarks/device.py train --experts 8
part 60 route "$python" experiments/benchmarks/device.py route
part 60 generate "$python" experiments/benchmarks/device.py generate
part 180 two-hop "$python" -m jaxlora.cli study two-hop --preset full --out "$out/two-hop" --cache-dir "$out/cache"
