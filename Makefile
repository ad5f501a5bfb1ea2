# Every target does its own set-up in .venv; nothing else is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := $(shell git ls-files csrc cmake python CMakeLists.txt pyproject.toml 2>/dev/null)

# mpirun of the pip wheel; more ranks than cores are fine for tests; root must say that it means it.
MPIRUN := $(BIN)/mpirun --oversubscribe
export OMPI_MCA_osc := ^ucx
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

.PHONY: demo test test-all lint format dev bench benchmarks cuda cuda-emulated sanitize wheel-cuda clean help

help:
	@sed -n 's/^## //p' Makefile

## make demo      build, then train on handwritten digits on two MPI ranks
demo: $(VENV)/installed-demo
	$(MPIRUN) -n 2 $(BIN)/thalweg train digits

## make test      build and run the tests (about 5 minutes on two cores)
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m "not slow" $(PYTEST_ARGS)

## make test-all  the slow sweeps too
test-all: $(VENV)/installed-test
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

## make lint      ruff, mypy, clang-format
lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror

## make format    rewrite the sources in the project's format
format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

## make dev       extension beside the Python sources, warnings as errors; repeat after every change
dev: $(VENV)/installed-dev
	$(BIN)/pip install --quiet pybind11 scikit-build-core ninja cmake
	$(BIN)/cmake -S . -B build/dev -G Ninja -DTHALWEG_IN_PLACE=ON -DTHALWEG_WERROR=ON \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja)
	$(BIN)/cmake --build build/dev
	$(BIN)/pip uninstall --quiet --yes thalweg
	$(BIN)/python -c "import site; open(site.getsitepackages()[0] + '/thalweg-dev.pth', 'w').write('$(abspath python)')"

## make bench     the quick benchmarks; SUITE=matmul etc., VS=torch,numpy
bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/run.py $(or $(SUITE),optim) --quick --vs $(or $(VS),numpy)

## make benchmarks  all suites in full, docs/benchmarks.md and its plots; MACHINE=name-of-results
SUITES = matmul optim norm step conv connectivity import
benchmarks: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet '.[bench]'
	for suite in $(SUITES); do \
	  $(BIN)/python benchmarks/run.py $$suite --vs torch,numpy,jax,sklearn --save $(MACHINE) || exit 1; done
	$(BIN)/python benchmarks/document.py

CONFIGURE = $(BIN)/cmake -S . -G Ninja -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja)

## make cuda      compile the CUDA half for sm_80 and sm_90a (needs nvcc 13, no GPU); hot kernels must not spill
cuda: $(VENV)/installed-cuda
	$(CONFIGURE) -B build/cuda -DTHALWEG_CUDA=ON
	$(BIN)/cmake --build build/cuda --target _cuda
	$(BIN)/python -m pytest -q tests/test_cuda_build.py

## make cuda-emulated  run the CUDA kernels on this CPU: all GPU tests in reverse order, then under AddressSanitizer
cuda-emulated: $(VENV)/installed-cuda
	$(CONFIGURE) -B build/emulated -DTHALWEG_CUDA_EMULATED=ON
	$(CONFIGURE) -B build/emulated-asan -DTHALWEG_CUDA_EMULATED=ON -DTHALWEG_SANITIZE=address
	$(BIN)/cmake --build build/emulated --target _cuda_emulated
	$(BIN)/cmake --build build/emulated-asan --target _cuda_emulated
	THALWEG_CUDA_EMULATED=$$(ls build/emulated/_cuda_emulated.*.so) THALWEG_EMULATE_ORDER=reverse \
	  $(BIN)/python -m pytest -q -m "gpu and not slow" -n auto $(PYTEST_ARGS)
	THALWEG_CUDA_EMULATED=$$(ls build/emulated-asan/_cuda_emulated.*.so) ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  $(BIN)/python -m pytest -q -m "gpu and not slow" -n auto $(PYTEST_ARGS)

# GCC's libraries come first in the process, since Python is not built with them. Python itself leaks.
# PyTorch and mpirun bring libraries of their own; sweeps on guarded memory would see ASan's instead.
SANITIZED = $(abspath build/sanitize)
RUNTIMES = $(foreach name,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(name).so))

## make sanitize  the tests under AddressSanitizer and UBSan, and the thread pool under ThreadSanitizer
sanitize: $(VENV)/installed-cuda
	$(CONFIGURE) -B build/tsan -DTHALWEG_SANITIZE=thread
	$(BIN)/cmake --build build/tsan --target pool_stress
	TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 build/tsan/pool_stress
	$(CONFIGURE) -B build/sanitize -DTHALWEG_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1"
	$(BIN)/cmake --build build/sanitize
	mkdir -p $(SANITIZED)/site
	cp -r python/thalweg $(SANITIZED)/site
	rm -f $(SANITIZED)/site/thalweg/*.so
	cp build/sanitize/_core.*.so $(SANITIZED)/site/thalweg
	PYTHONPATH=$(SANITIZED)/site ASAN_OPTIONS=detect_leaks=0:log_path=$(SANITIZED)/asan LD_PRELOAD="$(RUNTIMES)" \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=$(SANITIZED)/ubsan \
	  $(BIN)/python -m pytest -q -m "not slow and not torch and not mpi and not unsanitized" $(PYTEST_ARGS)

## make wheel-cuda  dist/thalweg_cuda13-….whl: the package with its CUDA half
wheel-cuda: $(BIN)/python
	rm -rf build/wheel-cuda
	mkdir -p build/wheel-cuda
	git archive HEAD | tar -x -C build/wheel-cuda
	sed -i 's/^name = "thalweg"$$/name = "thalweg-cuda13"/' build/wheel-cuda/pyproject.toml
	$(BIN)/python -m pip wheel --no-deps -Ccmake.define.THALWEG_CUDA=ON -w dist build/wheel-cuda

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed-demo: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[mpi,data,plot,progress]'
	@touch $@

$(VENV)/installed-test: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[test]'
	@touch $@ $(VENV)/installed-demo

$(VENV)/installed-dev: $(BIN)/python pyproject.toml Makefile
	$(BIN)/python -m pip install --quiet ruff==0.17.5 mypy==2.4.1 clang-format==23.1.5 numpy pytest hypothesis safetensors mpi4py
	@touch $@

$(VENV)/installed-cuda: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet pybind11 cmake ninja
	@touch $@

## make clean     remove everything that was built
clean:
	rm -rf $(VENV) build dist python/thalweg/*.so
