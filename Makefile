# The commands of this checkout.  All of them work as any user, without root, in any folder.
#   make demo [ARGS="--events 2000 --json"]   see the whole path run; stdout is the demo's alone
#   make test [ARGS="tests/unit -k digest"]   every test that can run here
#   make soak [ARGS="-k killed"]              hundreds of rounds of random faults: an hour or so
#   make bench [ARGS="apply --events 20000"]  how fast it is, beside what it could at best be; PEERS=1
#   make exhaustive [ARGS="--minutes 5"]      every event twice in every order, a million random
#                                             schedules, and PostgreSQL for 20 minutes; not in CI
#   make tsql ARGS="FILE ..."                 what is wrong with T-SQL, without a SQL Server
#   make check                                format, lint, types, import contracts, fresh pages
#   make docs                                 write the generated pages anew
#   make functions PYTHON=python3.13          build what `firebase deploy --only functions` uploads
#   make lock                                 pin the newest dependencies, with hashes
# PYTHON names the interpreter to build .venv with; WORKERS how many test processes run at once.

SHELL := /bin/sh
export PYTHON
# Compiled files are kept, whatever the machine's habit: each of a thousand processes would compile
# all that it loads anew.
export PYTHONDONTWRITEBYTECODE =
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo-deps demo bench test-deps tsql-deps test soak exhaustive tsql check docs
.PHONY: functions lock

WORKERS ?= 2
ARGS ?=
# 1: `make bench` lets dlt and Singer's target-postgres take part, from .venv-peers.
PEERS ?=

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo-deps:
	@sh tools/venv.sh runtime >&2

demo: demo-deps
	@exec .venv/bin/storemirror demo $(ARGS)

# Google's client, and what signs tokens, are among what tests need.
bench:
	@sh tools/venv.sh dev >&2
ifneq ($(PEERS),)
	@sh tools/venv.sh peers >&2
endif
	@STOREMIRROR_PEERS_PYTHON='$(if $(PEERS),$(CURDIR)/.venv-peers/bin/python)' \
		exec .venv/bin/python -m bench $(ARGS)

# Not everywhere is there a parser of T-SQL: its tests are skipped then, and in CI that fails.
test-deps:
	@sh tools/venv.sh functions >&2 & functions=$$!; \
	sh tools/venv.sh tsql >&2 & tsql=$$!; \
	sh tools/node.sh >&2 & node=$$!; \
	sh tools/venv.sh dev >&2; dev=$$?; \
	wait $$node || echo 'The JavaScript SDK cannot run here; what stands above says why.' >&2; \
	wait $$tsql || echo 'T-SQL cannot be judged here; what stands above says why.' >&2; \
	wait $$functions && exit $$dev

test: test-deps
	@exec .venv/bin/python -m pytest -q -n $(WORKERS) $(ARGS)

# One test after the other, each for as long as it takes: they compete for the machine on purpose.
soak: test-deps
	@exec .venv/bin/python -m pytest -q -n 0 --soak --timeout=0 tests/faults/processes tests/soak $(ARGS)

exhaustive: test-deps
	@exec .venv/bin/python -m tests.exhaustive --workers $(WORKERS) $(ARGS)

tsql: test-deps
	@exec .venv/bin/python -m tests.tsql $(ARGS)

check: test-deps
	@sh tools/check.sh

docs: test-deps
	@sh tools/docs.sh write

functions:
	@sh tools/venv.sh functions >&2
	@sh tools/functions.sh

lock: test-deps
	@sh tools/lock.sh
