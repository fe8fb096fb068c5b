#!/usr/bin/env bash
# What a machine with a CUDA device is for: the tests on it, the same kernels under compute-sanitizer's four tools, and the
# benchmark. Needs the package with its test and CUDA extras installed. Usage: tools/check_gpu.sh [python]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
kernels=(tests/backends/test_cuda.py tests/test_device.py)

"$python" -m mfakit info
"$python" -m pytest -q -m gpu tests
for tool in memcheck racecheck initcheck synccheck; do
  echo "== compute-sanitizer $tool"
  # Small cases only: the tools run kernels some hundred times slower. CuPy's pool would hide accesses beyond an array.
  CUPY_CACHE_IN_MEMORY=1 MFAKIT_NO_POOL=1 compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
    "$python" -m pytest -q -x -m gpu -k "device and (usual or memory or densities or sampling or fitting)" "${kernels[@]}"
done
"$python" -m benchmarks gpu
