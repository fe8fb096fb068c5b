#!/usr/bin/env bash
# What a machine with a CUDA device is for: the tests on it, the same kernels under compute-sanitizer's four tools, and the
# benchmark. Everything is run whatever fails before it, and the exit status says whether anything did. Needs the package
# with its test and CUDA extras installed. Usage: tools/check_gpu.sh [python] [tests|sanitizers|benchmark ...]
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
parts=("${@:2}")
[ ${#parts[@]} -gt 0 ] || parts=(tests sanitizers benchmark)
kernels=(tests/backends/test_cuda.py tests/test_device.py)
# Small cases only: the tools run kernels some hundred times slower.
cases="device and (usual or memory or densities or sampling or fitting or subspace or candidates or attack)"
failed=()

run() {
  echo "== $*"
  "$@" || failed+=("$*")
}

"$python" -m mfakit info
for part in "${parts[@]}"; do
  case $part in
    tests) run "$python" -m pytest -q -m gpu tests ;;
    sanitizers)
      for tool in memcheck racecheck initcheck synccheck; do
        # CuPy's pool would hide accesses beyond an array.
        run env MFAKIT_NO_POOL=1 compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
          "$python" -m pytest -q -x -m gpu -k "$cases" "${kernels[@]}"
      done
      ;;
    benchmark) run "$python" -m benchmarks gpu ;;
    *) echo "unknown part: $part" && exit 2 ;;
  esac
done
printf 'failed: %s\n' "${failed[@]:-nothing}"
[ ${#failed[@]} -eq 0 ]
