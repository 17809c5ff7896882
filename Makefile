# `make` lists what there is to do. Every target sets up .venv by itself when needed.
#
#   PYTHON         the Python (3.11 or newer) that .venv is made of
#   PROFILE        smoke, cpu, full or gpu: how much `make run` computes
#   NOTEBOOKS      which notebooks `make run` executes ("00 03-05"); all when empty
#   TORCH_FLAVOUR  auto (CUDA where an NVIDIA driver answers, else CPU), cpu, cuda,
#                  or one CUDA version (cu126)
#   WORKERS        processes the tests are spread over
#   PIP_ARGS       passed on to every `pip install`

PYTHON ?= python3
PROFILE ?= cpu
NOTEBOOKS ?=
TORCH_FLAVOUR ?= auto
WORKERS ?= 2
PIP_ARGS ?=

SHELL := bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip install $(1), with one line for each file it gets; errors come through as they are.
FILES_ONLY := { grep --line-buffered -oE '[^/ =]+\.whl( |$$)' || true; }
pip_install = set -o pipefail; \
	$(PIP) install $(PIP_ARGS) -c constraints.txt $(1) | $(FILES_ONLY)
TORCH_VERSION := $(patsubst torch==%,%,$(filter torch==%,$(shell cat constraints.txt)))

ifeq ($(TORCH_FLAVOUR),auto)
flavour := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
else
flavour := $(TORCH_FLAVOUR)
endif

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z]+:.* ## ' $(MAKEFILE_LIST) | sort | \
	  awk -F ':.* ## ' '{printf "make %-7s %s\n", $$1, $$2}'

.PHONY: run
run: .venv/.installed ## execute the notebooks and write the report (PROFILE=cpu)
	$(BIN)/alignlab run $(NOTEBOOKS) --profile $(PROFILE)

.PHONY: test
test: .venv/.installed ## lint, run the tests, execute and check every notebook on smoke
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/alignlab build --check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)
	$(BIN)/alignlab run --profile smoke
	$(BIN)/alignlab check latest

.PHONY: lab
lab: .venv/.installed ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

.PHONY: bench
bench: .venv/.installed ## compare with other libraries (benchmarks/)
	@ls benchmarks/*.py >/dev/null 2>&1 || { echo "benchmarks/ holds none yet"; exit 1; }
	for script in benchmarks/*.py; do $(BIN)/python "$$script" || exit 1; done

.PHONY: site
site: .venv/.installed ## build the site from the executed notebooks: build/site/index.html
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/site

.PHONY: build
build: .venv/.installed ## make the notebooks from notebooks/source
	$(BIN)/alignlab build

.PHONY: install
install: .venv/.installed ## set up .venv and nothing else

.PHONY: clean
clean: ## remove .venv and caches of tools; runs and downloads stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps below are written last, so what was cut short is done again.

.venv/.installed: pyproject.toml constraints.txt .venv/.torch-$(flavour)
	@echo "Installing alignlab and what it needs ..."
	@$(call pip_install,-e '.[dev]')
	@touch $@

# PyTorch goes first and alone, because its CUDA build brings several GB that a machine
# without a GPU has no use for. The CPU build is labelled "+cpu": pip takes it where it
# is offered one; elsewhere uv, which knows where PyTorch keeps its builds, gets it.
.venv/.torch-$(flavour): constraints.txt | .venv/.created
	@echo "Installing torch $(TORCH_VERSION) ($(flavour)) ..."
	@rm -f .venv/.torch-*
	@pip_torch() { $(call pip_install,"$$1"); }; \
	uv_torch() { \
	  $(PIP) install $(PIP_ARGS) --quiet 'uv>=0.9' && \
	  $(BIN)/uv pip install --python $(BIN)/python --torch-backend $(flavour) \
	    --constraints constraints.txt torch; }; \
	case "$(flavour)-$$(uname -s)" in \
	  cpu-Linux) \
	    pip_torch "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || uv_torch || { \
	      echo "No CPU build was found: taking the general one, which is large." >&2; \
	      pip_torch "torch==$(TORCH_VERSION)"; } ;; \
	  cpu-*) pip_torch "torch==$(TORCH_VERSION)" ;; \
	  cuda-*) pip_torch "torch===$(TORCH_VERSION)" ;; \
	  *) uv_torch ;; \
	esac
	@touch $@

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "alignlab needs Python 3.11 or newer and $(PYTHON) is not:" \
	    "name one that is, as in 'make run PYTHON=python3.12'." >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@touch $@
