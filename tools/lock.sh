#!/bin/sh
# Pin every dependency, with hashes, for all platforms and Pythons; nothing names an index.
#
# usage: tools/lock.sh [uv options, such as --upgrade-package NAME]      after `make test-deps`
set -eu

compile() {
    .venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-header --extra embedded "$@" pyproject.toml
}

compile --group build -o requirements/runtime.txt "$@"
compile --extra firestore --extra triggers --group dev -o requirements/dev.txt "$@"
