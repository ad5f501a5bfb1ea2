#!/usr/bin/env bash
# Everything on a machine with a GPU, CUDA 13, and Python with torch, CuPy, pybind11, scikit-build-core,
# CMake, ninja and pytest, without a network: gpu.sh [build|test|sanitize|bench|all]
#
# Each phase stays under nine minutes and leaves a mark in build/gpu, so that a second call goes on where
# the first one stopped; remove the mark to repeat a phase. Results: $OUT/gpu.json, $OUT/*.log
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build/gpu}
PYTHON=${PYTHON:-python3}
export PATH=$PATH:/usr/local/cuda/bin PYTHONUNBUFFERED=1
SITE=$PWD/build/gpu-site
export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
MARKS=build/gpu
mkdir -p "$OUT" "$MARKS"

phase() {  # phase NAME COMMAND…: once, within nine minutes
  local name=$1
  shift
  if [ -e "$MARKS/$name.done" ] && [ "$name" != build -o -d "$SITE" ]; then echo "== $name: done before"; return; fi
  echo "== $name"
  timeout 540 "$@" 2>&1 | tee "$OUT/$name.log"
  touch "$MARKS/$name.done"
}

build() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  $PYTHON -m pip install --quiet --no-build-isolation --no-deps --no-index --upgrade --target "$SITE" \
    -Ccmake.define.THALWEG_CUDA=ON -Ccmake.define.CMAKE_CUDA_ARCHITECTURES=90a-real .
  $PYTHON -c "import thalweg as tw; print(tw.__version__, tw.cuda.problem() or 'CUDA works')"
}

# Sanitizers see small kernels only: a few tests of each family.
sanitize() {
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return; }
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 9 \
      $PYTHON -m pytest -q -m "gpu and not slow" -p no:cacheprovider tests/test_cuda_table.py \
      -k "(sum or strict or batch_norm) and float32" || echo "$tool: exit status $?"
  done
}

run_tests() { $PYTHON -m pytest -q -m "gpu and not slow" -p no:cacheprovider --durations=10 tests; }
run_benchmarks() { $PYTHON benchmarks/run.py gpu --vs torch --json "$OUT/gpu.json"; }
export -f build sanitize run_tests run_benchmarks
export OUT PYTHON SITE

case ${1:-all} in
  build) phase build bash -ec build ;;
  test) phase test bash -ec run_tests ;;
  sanitize) phase sanitize bash -ec sanitize ;;
  bench) phase bench bash -ec run_benchmarks ;;
  all)
    for name in build test sanitize bench; do "$0" "$name"; done
    ;;
  *)
    echo "usage: gpu.sh [build|test|sanitize|bench|all]" >&2
    exit 64
    ;;
esac
