#!/usr/bin/env bash
# Profiles of each operation on a CUDA device, in ten minutes: what waits for what (nsys), what limits each kernel (ncu), and
# where neither is installed the time of each kernel by CUDA events. Each part has a time limit. Reports and their summaries
# go to the folder $OUT where that is set, else to build/profile-gpu.
# Usage: tools/profile_gpu.sh [python] [operation ...], operations: see python -m benchmarks.profile --help
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
operations=("${@:2}")
[ ${#operations[@]} -gt 0 ] || operations=(log_prob grad_log_prob "EM step" subspace_distances gradient_attack)
out=${OUT:-build/profile-gpu}
mkdir -p "$out"
export PYTHONUNBUFFERED=1

"$python" -c 'import sys; from mfakit.backends import why_missing; sys.exit(why_missing("cuda"))' || exit 1
failed=()

# run SECONDS NAME COMMAND...: under a time limit, with a log
run() {
  local seconds=$1 name=$2
  shift 2
  echo "== $name (at most $seconds s)"
  timeout --kill-after=5 "$seconds" "$@" > "$out/$name.log" 2>&1 || failed+=("$name")
  tail -n 40 "$out/$name.log"
}

for operation in "${operations[@]}"; do
  name=${operation//[^a-zA-Z0-9]/-}
  run 60 "$name-events" "$python" -m benchmarks.profile "$operation"
  if command -v nsys > /dev/null; then
    run 90 "$name-nsys" nsys profile --trace=cuda,nvtx,osrt --capture-range=cudaProfilerApi --force-overwrite=true \
      --stats=true --output="$out/$name" "$python" -m benchmarks.profile "$operation" --once
  fi
  if command -v ncu > /dev/null; then
    run 120 "$name-ncu" ncu --set=full --profile-from-start=off --launch-count=12 --force-overwrite \
      --export="$out/$name" "$python" -m benchmarks.profile "$operation" --once
  fi
done
printf 'failed: %s\n' "${failed[@]:-nothing}"
[ ${#failed[@]} -eq 0 ]
