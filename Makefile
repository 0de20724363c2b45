# Every target makes its own virtual environment when there is none; what only tests and tools need is added
# by the first target that needs it.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TOOLS  := $(VENV)/.tools_installed
UV     := uv==0.13.9

# Tests, the daemon and the bench start hundreds of processes: none has to compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo dev test test-faults audit bench bench-model bench-promotion bench-overseer bench-erasure bench-serve docs check lint format constraints clean

demo: $(STAMP)          ## play the whole story on synthetic data, and show how it ended
	POLENG_NOTIFY= $(BIN)/poleng simulate full

dev: $(STAMP)           ## open the Dagster UI and its daemon
	$(BIN)/poleng dev

# Tests commit to thousands of small databases, and a disk is waited for each time: where memory has room,
# they are kept there. What a disk does is asked on disks of the tests' own.
IN_MEMORY = $(shell df --output=avail -k /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 6000000 {print "TMPDIR=/dev/shm"}')

# More workers than cores, because many tests wait. Each keeps linear algebra to one thread: threads that
# wait for one another take the core from those that work.
test: $(TOOLS)          ## run the tests
	$(IN_MEMORY) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -m 'not timed' -n 3 --dist loadfile --no-loadscope-reorder
	$(IN_MEMORY) $(BIN)/python -m pytest -m timed $$(grep -rl --include='*.py' mark.timed poleng_assets_tests)

# The daily round: what a change of a rule breaks first. `make test` asks everything.
check: $(TOOLS)         ## lint, types, the layout of the package, and the tests of core
	$(MAKE) --no-print-directory lint
	$(IN_MEMORY) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -m 'not timed and not slow' -n 3 --dist loadfile \
		poleng_assets_tests/core poleng_assets_tests/study poleng_assets_tests/test_rooms.py

test-faults: $(TOOLS)    ## inject every fault for real: bad files, kills, a crowd, no network (an hour and a half)
	PYTHONPATH=. $(BIN)/python tools/test_faults.py

audit: $(STAMP)         ## look the pinned versions up among the known vulnerabilities
	$(shell command -v $(PYTHON) || command -v python3) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --requirement constraints-dev.txt --no-deps --disable-pip

bench: $(TOOLS)         ## speed and size beside the limit and the seed's way; DATA=folder, ARGS=--quick or --full
	$(BIN)/python -m tools.bench $(if $(DATA),--data $(DATA)) $(ARGS)

bench-promotion: $(TOOLS)  ## how often the gates are right; DATA=folder with field_studies/
	$(BIN)/python tools/bench_promotion.py --data $(DATA)

bench-model: $(TOOLS)   ## the model and its promotion against their bars; DATA=folder of a real survey
	PYTHONPATH=. $(BIN)/python tools/bench_model.py --data $(DATA)

bench-overseer: $(TOOLS)  ## the overseer's loop against its bars; DATA=folder of a real survey, or made-up people
	PYTHONPATH=. $(BIN)/python tools/bench_overseer.py $(if $(DATA),--data $(DATA))

bench-erasure: $(TOOLS)  ## forget twenty people who stand in a home in every form, and search for what is left
	PYTHONPATH=. $(BIN)/python tools/bench_erasure.py

bench-serve: $(TOOLS)   ## requests a second and how long they take; DATA=folder of a real survey, HOME_FOLDER=a home
	$(BIN)/python tools/bench_serve.py $(if $(DATA),--data $(DATA)) $(if $(HOME_FOLDER),--home $(HOME_FOLDER))

docs: $(TOOLS)          ## make a web site of docs/, in site/
	$(BIN)/mkdocs build --strict --quiet

lint: $(TOOLS)          ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two files of the same versions: what the project runs with, and the tools on top of it.
constraints:            ## resolve all versions anew
	$(shell command -v $(PYTHON) || command -v python3) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check $(UV)
	$(VENV)/lock/bin/uv pip compile $(LOCK) --upgrade --group lock pyproject.toml -o constraints.txt
	$(VENV)/lock/bin/uv pip compile $(LOCK) --upgrade --group lock --extra dev -c constraints.txt \
		pyproject.toml -o constraints-dev.txt

LOCK = --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make constraints"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# A file that is not the one that was resolved is refused. Modules are compiled when they are first imported: most
# never are. The stamp is written last: an installation that was interrupted starts again.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile

$(STAMP): constraints.txt pyproject.toml
	@echo "Setting up $(VENV): its packages take a minute, the first time."
	$(shell command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(INSTALL) --require-hashes -r constraints.txt
	$(INSTALL) --no-build-isolation -e .
	touch $(STAMP)

$(TOOLS): constraints-dev.txt $(STAMP)
	$(INSTALL) --require-hashes -r constraints-dev.txt
	touch $(TOOLS)
