#!/bin/sh
# Write the generated pages of docs/reference and the rendered SQL of deploy/, or tell whether they are fresh.
#
# usage: tools/docs.sh write|check      from the root of the checkout, after `make test-deps`
set -eu

case $1 in
write)
    # Tests tell when these files are stale.
    .venv/bin/storemirror schema render --dialect postgresql --out deploy/postgresql
    .venv/bin/storemirror schema render --dialect sqlserver --out deploy
    set -- -r
    ;;
check) set -- --check --diff --check-fail-msg='run: make docs' ;;
*) echo "usage: tools/docs.sh write|check" >&2; exit 2 ;;
esac
.venv/bin/python tools/schema_files.py "$1"
.venv/bin/python tools/firestore_indexes.py "$1"
exec .venv/bin/cog -U --verbosity=1 -I tools "$@" docs/reference/*.md
