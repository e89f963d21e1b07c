#!/bin/sh
# Run every check that needs no server: one line each, the whole output of those that fail.
#
# usage: tools/check.sh      from the root of the checkout, after `make test-deps`
# Ends with 1 when any check failed; all of them run.
set -u

failed=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT

check() {
    name=$1
    shift
    if "$@" >"$output" 2>&1; then
        echo "ok      $name"
    else
        failed=1
        echo "FAILED  $name: $*"
        cat "$output"
    fi
}

check format .venv/bin/ruff format --check .
check lint .venv/bin/ruff check .
check types .venv/bin/mypy
# What is deployed has an environment of its own, and with it the types of its framework.
check types-of-functions .venv/bin/mypy --python-executable .venv-functions/bin/python functions
check imports .venv/bin/lint-imports --no-logo
check pages sh tools/docs.sh check
exit "$failed"
