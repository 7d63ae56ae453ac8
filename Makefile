# The two commands: `make book` to read, `make test` to check. `make help` lists the rest.

# The first of these that is 3.11 or newer makes $(VENV).
PYTHON  := python3 python3.13 python3.12 python3.11
VENV    := .venv
LOCK    := requirements.lock
PORT    := 8000
CHAPTER :=

PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip --disable-pip-version-check --no-input install --no-deps --no-compile
OLDEST  := .venv-oldest
COMPILE := uv pip compile pyproject.toml --group build --group neural-tangents --universal --python-version 3.11 \
  --upgrade --no-header --no-annotate --no-emit-index-url --no-emit-find-links
LOCKED  := $(VENV)/.locked
READY   := $(VENV)/.ready
MATHJAX := notebooks/node_modules/.package-lock.json
BROWSER := tests/site/node_modules/.package-lock.json
HTML    := notebooks/_build/html
SITE    := $(HTML)/index.html
PDF     := notebooks/_build/ntk-book.pdf
OFFLINE := notebooks/_build/ntk-book-offline.zip
PAGES   := $(shell find notebooks -type d \( -name node_modules -o -name _build -o -name '.*' -o -name __pycache__ \) -prune -o -type f -print)
NBVAL   := --nbval --nbval-sanitize-with tests/book/sanitize.cfg
WORKERS := --numprocesses 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book site pdf offline check lint style test test-oldest lab student instructor slides execute links lock gpu bench trials colab clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo 'Settings: CHAPTER=01_neural_tangent_kernel (execute, colab), PORT=8000 (book), PYTHON=python3.12 VENV=.venv-3.12.'

book: $(SITE) ## build the site from the stored outputs and serve it on this machine
	@$(PY) tools/serve.py $(HTML) $(PORT)

site: $(SITE) ## build the site, warnings as errors, without serving it

pdf: $(PDF) ## print the book to notebooks/_build/ntk-book.pdf (needs Chromium)

offline: $(OFFLINE) ## pack the site into notebooks/_build/ntk-book-offline.zip, to be read without a server

check: style ## before a commit: format, lint, types, page lint, and the quick unit tests
	$(PY) -m pytest tests/book tests/unit -m 'not slow' $(WORKERS)

lint: style ## format, lint, types and page lint alone
	$(PY) -m pytest tests/book tests/unit/test_project.py

style: $(READY) ## format, lint and types alone
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy

test: lint $(SITE) $(BROWSER) ## lint, unit tests, the site in a browser, every chapter re-executed
	$(PY) -m pytest tests/unit tests/site notebooks --ignore tests/unit/test_project.py --site $(HTML) $(NBVAL) $(WORKERS)
	@echo 'make test: lint, unit tests, site and every chapter passed.'

# Old packages beside newer ones warn of each other; what is deprecated today, the other lock shows.
test-oldest: ## the unit tests on the oldest Python and packages that pyproject.toml allows
	$(MAKE) $(OLDEST)/.ready VENV=$(OLDEST) LOCK=requirements-oldest.lock PYTHON='python3.11 $(PYTHON)'
	$(OLDEST)/bin/python -m pytest tests/unit --numprocesses 2 --ignore tests/unit/test_project.py -W ignore::DeprecationWarning

lab: $(READY) ## open the chapters in JupyterLab
	$(PY) -m jupyter trust notebooks/*.ipynb # or JupyterLab stops the sliders
	$(PY) -m jupyterlab notebooks

student: $(READY) ## chapters to hand out, with blanks in place of solutions: notebooks/_build/student
	$(PY) tools/editions.py student

instructor: $(READY) ## chapters with every solution in sight: notebooks/_build/instructor
	$(PY) tools/editions.py instructor

slides: $(MATHJAX) $(READY) ## a deck of slides for each chapter, to lecture from: notebooks/_build/slides
	$(PY) tools/editions.py slides

execute: $(READY) ## execute the chapters and store their outputs; one chapter: CHAPTER=name
	$(PY) tools/notebooks.py execute $(CHAPTER)

links: $(READY) ## write every link that follows from pyproject.toml's project.urls
	$(PY) tools/links.py
	$(PY) tools/notebooks.py links

lock: ## resolve both locks anew (needs uv)
	@command -v uv >/dev/null || { echo 'make lock needs uv: https://docs.astral.sh/uv/' >&2; exit 1; }
	$(COMPILE) --all-extras -o requirements.lock
	$(COMPILE) --extra compat --extra book --extra test --resolution lowest-direct -o requirements-oldest.lock

gpu: ## check and time every kernel on this machine's GPU, with its own Python and JAX
	PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(firstword $(PYTHON)) tools/gpu.py

bench: $(READY) ## time the kernels against neural-tangents and print the ratios
	$(PY) -m pytest tests/benchmarks --benchmark-columns=min,median,rounds --benchmark-sort=name

trials: $(READY) ## hours: every claim with other keys and with planted errors, stored in notebooks/stored
	$(PY) tools/trials.py keys
	$(PY) tools/trials.py planted
	$(PY) tools/trials.py slips

colab: $(READY) ## run the chapters as Colab would, build for Binder; one chapter: CHAPTER=name (needs python3.12)
	$(PY) -m pytest tests/colab -k '$(CHAPTER)'

clean: ## remove everything that make made
	rm -rf $(VENV) $(OLDEST) notebooks/_build notebooks/node_modules tests/site/node_modules .*_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(LOCKED): $(LOCK)
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$($$python --version)"; exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo 'The book needs Python 3.11 or newer, and none of these is: $(PYTHON). Install one, or name yours: make PYTHON=/path/to/python3.' >&2; exit 1
	$(PIP) -r $(LOCK)
	@echo 'Compiling what was installed (under a minute)'; $(PY) -m compileall -q -j 0 $(VENV)/lib
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	$(PIP) --no-build-isolation --editable .
	@touch $@

%/node_modules/.package-lock.json: %/package-lock.json
	@node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' >/dev/null 2>&1 && command -v npm >/dev/null || \
	  { echo 'The site needs npm and Node 18 or newer, for its mathematics and its tests: install Node. (make lab works without.)' >&2; exit 1; }
	npm ci --prefix $* --ignore-scripts --no-audit --no-fund
	@touch $@

$(SITE): $(MATHJAX) $(READY) $(PAGES) $(shell find ntk_helpers -name '*.py')
	@rm -rf $(HTML) notebooks/_build/doctrees notebooks/_build/figures
	$(PY) -m sphinx -b html -W --keep-going -d notebooks/_build/doctrees notebooks $(HTML)
	@touch $@

$(PDF): $(SITE) $(BROWSER) tools/pdf.py tools/pdf.mjs
	$(PY) tools/pdf.py $(HTML) $@

$(OFFLINE): $(SITE) tools/offline.py
	$(PY) tools/offline.py $(HTML) $@
