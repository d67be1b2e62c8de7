# make demo   installs into .venv, trains a small LoRA, draws out/demo/index.html
# make test   the test suite        make lint   ruff and pyright        make bench   speed and memory
#
# Another build of torch:  make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
OUT ?= out/demo
WORKERS ?= auto

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench install clean

demo: $(STAMP)
	$(BIN)/python -m lora_core demo --output-dir $(OUT) $(ARGS)

# One process a core, one thread each: faster than one process with all threads. WORKERS=0 for one process.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Beside sd-scripts when SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON are set, see benchmarks/README.md.
bench: $(STAMP)
	test -f out/random_sd15.safetensors || $(BIN)/python tools/random_checkpoint.py sd15 out/random_sd15.safetensors
	$(BIN)/python benchmarks/train_step.py out/random_sd15.safetensors

install: $(STAMP)

# torch first and by its exact name, so that nothing below chooses another build of it.
$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info < (3, 14); \
		sys.exit(None if ok else "LoRA Loom needs Python 3.10 to 3.13; this is %s. Try: make PYTHON=python3.12 %s" % (sys.version.split()[0], "$(MAKECMDGOALS)"))'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[engine,dev]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT)
