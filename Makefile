# make demo | test | lint | bench | docs | llama-cpp: each creates .venv when it is missing or out of date.
# PYTHON=python3.12 picks another interpreter; EDGEQ_DATA=DIR adds the real-data tests and benchmarks.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that starts and is new enough (a name on PATH may be a shim that does not).
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	"$$python" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	>/dev/null 2>&1 && echo "$$python" && break; done)
# Twice quiet: pip warns about every index that lacks a package. Errors still show.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
# Rows of the demo need packages that not every platform has, such as coremltools and TensorRT for RTX.
HAS := $(BIN)/python -c 'import importlib.util as u, sys; raise SystemExit(not u.find_spec(sys.argv[1]))'
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
WORKERS ?= 2

.PHONY: help demo demo-llm test slow lint format bench docs llama-cpp docker-check clean

help:
	@echo 'make demo    train a small CNN and a tiny Llama, compile them for many targets, measure and gate each'
	@echo 'make test    the test suite (make slow: the real-data tests, needs EDGEQ_DATA)'
	@echo 'make lint    ruff, mypy --strict, packaging and generated docs'
	@echo 'make bench   edgeq against its peers (needs EDGEQ_DATA)'
	@echo 'make docs    regenerate docs/cli.md, docs/coreml-ops.md and docs/tensorrt-lint.md'
	@echo 'make llama-cpp  build llama-cpp-python, for the tests that run GGUF files and for K- and IQ-quants'
	@echo 'make docker-check  lint Dockerfile.trt and try its pip step in a fresh environment'

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo 'edgeq needs Python 3.11 or 3.12; none found. Name one: make PYTHON=/path/to/python3.11'; exit 2; }
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# torch first and alone: its pinned version is the CPU build, and the others then accept it.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@echo 'Installing $(TORCH)'
	@$(PIP) '$(TORCH)'
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.torch
	@echo 'Installing edgeq with the extras of the demo'
	@$(PIP) -c constraints.txt -e '.[demo]'
	@$(PIP) -c constraints.txt --only-binary coremltools -e '.[coreml]' 2>/dev/null \
	  || echo 'No coremltools for this platform: the demo goes on without Core ML'
	@$(PIP) -c constraints.txt --only-binary tensorrt-rtx-cu13-libs -e '.[tensorrt-rtx]' 2>/dev/null \
	  || echo 'No TensorRT for RTX for this platform: the demo goes on without TensorRT'
	@$(PIP) -c constraints.txt --only-binary openvino -e '.[openvino]' 2>/dev/null \
	  || echo 'No OpenVINO for this platform: the demo goes on without it'
	@$(PIP) -c constraints.txt --only-binary torchao -e '.[inc]' 2>/dev/null \
	  || echo 'No Neural Compressor for this platform: the demo goes on without it'
	@$(PIP) -c constraints.txt -e '.[llm]'
	@for extra in gguf genai bnb; do \
	  $(PIP) -c constraints.txt --only-binary :all: -e ".[$$extra]" 2>/dev/null \
	  || echo "No packages of the extra $$extra for this platform: the demo goes on without its rows"; done
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.torch
	@echo 'Installing edgeq with the extras of development'
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.peers: $(VENV)/.dev
	@echo 'Installing the peers'
	@$(PIP) -c constraints.txt -e '.[dev,peers]'
	@touch $@

# It comes as source: llama.cpp is compiled, which takes minutes and a C++ compiler.
$(VENV)/.llama-cpp: pyproject.toml constraints.txt | $(VENV)/.dev
	@echo 'Building llama-cpp-python'
	@CMAKE_ARGS=-DLLAVA_BUILD=OFF $(PIP) -c constraints.txt -e '.[llama-cpp]'
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python examples/digits/prepare.py
	@rows='--only int8-static --only int8-dynamic --only int4-weight'; \
	  ! $(HAS) coremltools || rows="$$rows --only fp16 --only ane-w8a8 --only ane-pal4"; \
	  ! $(HAS) tensorrt_rtx || rows="$$rows --only rtx-fp16 --only rtx-int8"; \
	  ! $(HAS) openvino || rows="$$rows --only ov-int8"; \
	  ! { $(HAS) neural_compressor && command -v $${CXX:-g++} >/dev/null; } || rows="$$rows --only inc-int8"; \
	  $(BIN)/edgeq check examples/digits/edgeq.toml --force $$rows
	@$(MAKE) --no-print-directory demo-llm

# A language model by three methods in the formats whose engines run here (awq would take as long again).
demo-llm: $(VENV)/.demo
	@$(BIN)/python examples/tiny-llama/prepare.py
	@formats=; for pair in gguf:gguf onnxruntime_genai:onnxruntime-genai bitsandbytes:bnb-nf4; do \
	  ! $(HAS) "$${pair%%:*}" || formats="$$formats,$${pair#*:}"; done; \
	  [ -n "$$formats" ] || { echo 'No engine of language models for this platform: nothing to compare'; exit 0; }; \
	  $(BIN)/edgeq compare build/tiny-llama/model --methods rtn,gptq,nf4 --formats "$${formats#,}" \
	    --calibration build/tiny-llama/docstrings.txt --calibration build/tiny-llama/source.txt \
	    --evaluation build/tiny-llama/evaluation.txt --data-option max_tokens=16384 --calibration-samples 64 \
	    --budget 'perplexity <= 103%' --budget 'size <= 50%' --hardware cpu --ram 8GB \
	    --measure size --measure accuracy --measure generation --quick --threads 1 --force -o build/tiny-llama/tiny

llama-cpp: $(VENV)/.llama-cpp

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not slow'

slow: $(VENV)/.dev
	@[ -n "$${EDGEQ_DATA:-}" ] || { echo 'make slow needs EDGEQ_DATA=DIR, the folder of real models and data'; exit 2; }
	@$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -n0 tests/edgeq/test_packaging.py tests/edgeq/test_docs.py

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.peers
	@[ -n "$${EDGEQ_DATA:-}" ] || { echo 'make bench needs EDGEQ_DATA=DIR, the folder of real models and data'; exit 2; }
	@for name in calibration accuracy zoo; do echo "== $$name"; $(BIN)/python "benchmarks/peers/$$name.py"; done

docs: $(VENV)/.demo
	@$(BIN)/python docs/generate_cli.py
	@$(BIN)/python docs/generate_coreml_ops.py
	@$(BIN)/python docs/generate_tensorrt_lint.py

# What the image installs, tried without Docker: from the files of the build context alone, in a fresh environment.
docker-check: $(VENV)/.dev
	@$(BIN)/hadolint Dockerfile.trt
	@place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT && mkdir "$$place/source" \
	  && cp -a $$(sed -n 's/^!//p' .dockerignore) "$$place/source" \
	  && $(PYTHON) -m venv --without-pip "$$place/edgeq" \
	  && $(BIN)/python -m pip --python "$$place/edgeq/bin/python" install --quiet --quiet --no-cache-dir \
	    --constraint "$$place/source/constraints.txt" "$$place/source[tensorrt]" \
	  && cd / && "$$place/edgeq/bin/python" -c 'import edgeq, cuda.bindings.runtime' \
	  && "$$place/edgeq/bin/edgeq" targets && du -sh "$$place/edgeq" | cut -f1

clean:
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
