# make demo    label drawn scenes on this machine and show the result
# make demo-weights  train the demo's checkpoint anew
# make demo-picture  draw the README's picture anew
# make report-picture  run the demo and draw the picture of its report anew; needs Chromium
# make test-cluster  the tests of submit, doctor and lost nodes, which start clusters of their own
# make test-faults  the whole matrix of what stores do wrong, of kills, and of what ends a training
# make test    the tests, two files at a time; WORKERS=0 for one after the other, in one process
# make test-runs  the tests of whole runs and trainings: kills, faults, photographs, the loop
# make coverage  the tests that take minutes, and the share of the code that they run
# make gpu-rehearsal  every line of the check for GPUs, on the CPU; make gpu-wheels: what it needs there
# make readers  install what reads exports, for a test: Datumaro, Label Studio's SDK, `datasets`
# make azurite  install a server of Azure's kind for the tests, with npm; without it they are skipped
# make check   ruff, mypy and import-linter
# make docs-settings  write docs/settings.md anew, of the settings' classes
# make docs    build the documentation as a site, in site/
# make wheel   build dist/fcn_pipeline-*.whl
# make check-infra CRDS=folder  check infra/kuberay against KubeRay's definitions
# make lock    pin every dependency again (needs uv)
# VENV=path    use another virtual environment; it is rebuilt only when the lock has changed
PYTHON ?= python3
VENV ?= .venv
# Of the machine with the GPU.
GPU_PYTHON ?= 3.12
COVERED := tests/fcn tests/pipeline $(addprefix tests/jobs/,logs settings test_models.py test_import_weights.py test_label.py)
DOCS := .venv-docs
AZURITE := 3.37.0
READERS := .venv-readers
# Processes that run the tests.
WORKERS ?= 2
IN_TWO := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed-$(shell sha256sum requirements-dev.lock | cut -c1-16)
RUN := $(VENV)/bin/python

.PHONY: gpu-rehearsal gpu-wheels azurite readers install check test test-runs test-cluster test-faults check-infra coverage docs docs-settings demo \
	demo-weights demo-picture report-picture bench wheel lock clean

# The project itself is linked into the environment, again if that served another checkout.
install: $(STAMP)
	@[ "$$(cat $(VENV)/.checkout 2>/dev/null)" = "$(CURDIR)" ] || \
		($(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable . && echo "$(CURDIR)" > $(VENV)/.checkout)

$(STAMP): requirements-dev.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"fcn-pipeline needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}: call make with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --require-hashes -r requirements-dev.lock
	@rm -f $(VENV)/.installed-* $(VENV)/.checkout
	@touch $@

readers: $(READERS)/.installed

$(READERS)/.installed: tests/readers/requirements.lock
	$(PYTHON) -m venv $(READERS)
	$(READERS)/bin/pip install --quiet --require-hashes -r tests/readers/requirements.lock
	@touch $@

azurite: .azurite/.installed-$(AZURITE)

.azurite/.installed-%:
	npm install --no-save --no-audit --no-fund --loglevel=error --prefix .azurite azurite@$*
	@touch $@

demo: install
	$(RUN) -m jobs demo

demo-weights: install
	$(RUN) -m jobs.demo.weights

demo-picture: install
	$(RUN) -m jobs.demo.picture

report-picture: demo
	$(RUN) -m tests.report_picture

check: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

test: install
	$(RUN) -m pytest $(IN_TWO)

test-runs: install
	$(RUN) -m pytest $(IN_TWO) -m "runs and not cluster and not faults" tests/jobs

# Of one process: what Ray's workers run is not seen. The floor is what there was on 2026-11-26;
# the whole suite but the long runs has 90 (2026-11-27).
coverage: install
	$(RUN) -m pytest -m "not cluster and not faults" --cov --cov-report=term:skip-covered --cov-fail-under=72 $(COVERED)

test-cluster: install
	$(RUN) -m pytest -m cluster

test-faults: install
	$(RUN) -m pytest -m "faults or not faults" tests/jobs/test_store_faults.py tests/jobs/test_exit.py \
		tests/jobs/test_kill.py tests/jobs/test_label.py tests/jobs/test_train.py tests/jobs/test_clouds.py

# What the check for GPUs imports, as wheels for a machine without a network.
gpu-wheels: install
	mkdir -p gpu-wheels
	sed '1,/^# others/d' tests/gpu/packages.txt | while read name; do grep -E "^$$name==" requirements-dev.lock; done \
	    | sed 's/ *\\$$//' > gpu-wheels/names.txt
	$(RUN) -m pip download -q --no-deps --only-binary=:all: --python-version=$(GPU_PYTHON) --implementation cp \
	    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	    -d gpu-wheels -r gpu-wheels/names.txt

# Every line of the check for GPUs, on this machine's CPU.
gpu-rehearsal: install
	$(RUN) tests/gpu/check.py --device cpu --tiny --limit-factor 6 --budget 3000 --out gpu-rehearsal

bench: install
	$(RUN) -m tests.benchmarks

docs-settings: install
	$(RUN) -m jobs.settings_page > docs/settings.new
	mv docs/settings.new docs/settings.md

# CRDS: a folder with KubeRay's ray.io_rayjobs.yaml and ray.io_raycronjobs.yaml.
check-infra: install
	$(RUN) -m tests.infra.check_crds $(CRDS)

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.installed: requirements-docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --require-hashes -r requirements-docs.lock
	@touch $@

wheel: install
	$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header tests/readers/requirements.in -o tests/readers/requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group build -c requirements-dev.lock -o requirements-build.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group docs -c requirements-dev.lock -o requirements-docs.lock

clean:
	rm -rf $(VENV) $(DOCS) $(READERS) .azurite site demo
