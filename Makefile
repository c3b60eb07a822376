# Darkroom: `make` says what there is to do. Everything installed goes into .venv, nothing else on the machine is touched
# (except that `make test`, as root on a Debian without a browser, installs one).

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

# What was last installed with success. These are copies, not timestamps: a file that merely looks newer installs nothing,
# and an archive unpacked over this folder, which can look older, is not overlooked.
RUNTIME_STAMP := $(VENV)/installed-requirements.txt
DEV_STAMP     := $(VENV)/installed-requirements-dev.txt

.DEFAULT_GOAL := help
.PHONY: help run test check bench clean venv runtime dev

help: ## Say what there is to do (this)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  Options:  make run ARGS="..."          arguments for app.py; "make run ARGS=--help" lists them'
	@echo '            make test ARGS="-k plan"     arguments for pytest'
	@echo '            make run PYTHON=python3.12   which Python makes .venv, the first time (3.11 or newer)'

run: runtime ## Install what is needed (the first time), then start the page
	@$(PY) app.py $(ARGS)

test: dev ## Run the tests; those that drive a browser are skipped where none can be had
	@$(PY) -m tests.setup_browser || true
	@$(PY) -m pytest $(ARGS)

check: dev ## Check the code with ruff, and its types with pyright
	@$(PY) -m ruff check .
	@$(PY) -m basedpyright --pythonpath $(PY)

bench: runtime ## Measure the engine on this machine
	@$(PY) -m benchmarks.run $(ARGS)

clean: ## Remove .venv and caches; pictures in outputs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . \( -path ./outputs -o -path ./.git \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp is written after pip succeeded, so an interrupted installation is taken up again by the next `make`.
runtime: venv
	@cmp -s requirements.txt $(RUNTIME_STAMP) || { \
	    echo "Installing what Darkroom needs into $(VENV) (this once; some minutes on a slow line) ..." \
	    && $(PY) -m pip install --disable-pip-version-check -r requirements.txt \
	    && cp requirements.txt $(RUNTIME_STAMP); }

dev: venv
	@cat requirements.txt requirements-dev.txt | cmp -s - $(DEV_STAMP) || { \
	    echo "Installing what the tests need into $(VENV) (this once; some minutes on a slow line) ..." \
	    && $(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt \
	    && cp requirements.txt $(RUNTIME_STAMP) \
	    && cat requirements.txt requirements-dev.txt > $(DEV_STAMP); }

# An environment with a Python that runs and is new enough is kept, whoever made it. One whose making was interrupted has no
# pip and is completed; one whose Python is gone (the system's was upgraded) is made anew.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

venv:
	@if $(PY) -c '' 2>/dev/null; then \
	    $(PY) $(NEW_ENOUGH) || { \
	        echo "Darkroom needs Python 3.11 or newer; $(VENV) holds $$($(PY) -V). Run 'make clean', then make again with PYTHON=python3.12 or another newer one." >&2; exit 1; }; \
	    cmp -s requirements.txt $(RUNTIME_STAMP) || $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV); \
	elif ! $(PYTHON) -c '' 2>/dev/null; then \
	    echo "Darkroom needs Python 3.11 or newer, and '$(PYTHON)' does not run here. Install it, or name another: make run PYTHON=python3.12" >&2; exit 1; \
	elif ! $(PYTHON) $(NEW_ENOUGH); then \
	    echo "Darkroom needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name a newer one: make run PYTHON=python3.12" >&2; exit 1; \
	else \
	    $(PYTHON) -m venv --clear $(VENV); \
	fi
