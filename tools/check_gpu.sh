#!/usr/bin/env bash
# What to run on a machine with a CUDA device, in ten minutes: a smoke test, what the device can do, the tests on it, the
# benchmark, and last compute-sanitizer. Each part has a time limit; if the smoke test fails, nothing else runs; any other
# failure is reported at the end. Logs and results are copied to the folder $OUT where that is set, after each part.
# Needs the package with its test and CUDA extras installed.
# Usage: tools/check_gpu.sh [python] [part ...], parts: smoke device tests benchmark memcheck racecheck initcheck synccheck
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
parts=("${@:2}")
[ ${#parts[@]} -gt 0 ] || parts=(smoke device tests benchmark memcheck)
logs=${OUT:-build/check-gpu}
mkdir -p "$logs"
kernels=(tests/backends/test_cuda.py tests/backends/test_device.py)
# Small cases only: the sanitizers run kernels some hundred times slower.
cases="device and (usual or memory or densities or sampling or fitting or subspace or candidates or attack or bounded or walks)"
failed=()
export PYTHONUNBUFFERED=1

# run SECONDS NAME COMMAND...: under a time limit, with a log
run() {
  local seconds=$1 name=$2 status
  shift 2
  echo "== $name (at most $seconds s): $*"
  timeout --kill-after=5 "$seconds" "$@" 2>&1 | tee "$logs/$name.log"
  status=${PIPESTATUS[0]}
  # Results that the command saved before it ended count too.
  if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu.json benchmarks/results/device.json "$OUT" 2>/dev/null; fi
  if [ "$status" -eq 124 ]; then echo "== $name ran into its limit of $seconds s"; fi
  [ "$status" -eq 0 ] || failed+=("$name")
  return "$status"
}

sanitizer() {
  # CuPy's pool would hide accesses beyond an array.
  run "$1" "$2" env MFAKIT_NO_POOL=1 compute-sanitizer --tool "$2" --error-exitcode 1 --target-processes all \
    "$python" -m pytest -q -x -m gpu -k "$cases" "${kernels[@]}"
}

"$python" -m mfakit info
"$python" -c 'import sys; from mfakit.backends import why_missing; sys.exit(why_missing("cuda"))' || exit 1
for part in "${parts[@]}"; do
  case $part in
    smoke)
      run 90 smoke "$python" -m pytest -q -x -m gpu -k "densities_on_the_device or attack" tests/backends/test_device.py || {
        echo "the smoke test failed: nothing else is run"
        exit 1
      }
      ;;
    device) run 75 device "$python" -m benchmarks device ;;
    tests) run 180 tests "$python" -m pytest -q -m "gpu and not slow" tests ;;
    benchmark) run 150 benchmark "$python" -m benchmarks gpu ;;
    memcheck) sanitizer 100 memcheck ;;
    racecheck | synccheck) sanitizer 300 "$part" ;;
    initcheck)
      # Reports reads of unwritten memory inside CUB's scans too, which are harmless: read its log, it decides nothing.
      sanitizer 300 initcheck || unset 'failed[-1]'
      ;;
    *) echo "unknown part: $part" && exit 2 ;;
  esac
done
printf 'failed: %s\n' "${failed[@]:-nothing}"
[ ${#failed[@]} -eq 0 ]
