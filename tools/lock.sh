#!/bin/sh
# Pin every dependency, with hashes, for all platforms and Pythons; nothing names an index.
#
# What is deployed as Firebase Functions has a file of its own, where `firebase deploy` looks for
# it: the framework there wants an older cloudevents than the tests.  The rest is as tested.
#
# usage: tools/lock.sh [uv options, such as --upgrade-package NAME]      after `make test-deps`
set -eu

compile() {
    .venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-header "$@" pyproject.toml
}

compile --extra embedded --group build -o requirements/runtime.txt "$@"
compile --extra embedded --extra firestore --extra gateway --extra servicebus --extra sqlserver \
    --extra triggers --group dev -o requirements/dev.txt "$@"
pinned=$(mktemp)
trap 'rm -f "$pinned"' EXIT
# A package may have one version for this Python and another for that: its condition stays with it.
sed -n '/^cloudevents==/d; s/^\([a-z0-9._-]*==[^\\]*\).*/\1/p' requirements/dev.txt >"$pinned"
compile --extra firestore --extra functions --extra gateway --extra servicebus --extra sqlserver \
    --constraint "$pinned" --no-annotate -o functions/requirements.txt "$@"
# In environments of their own: the peers of `make bench` would pull ours back, and what judges
# T-SQL or runs JavaScript nothing of ours needs.
for name in peers tsql node; do
    .venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-header -o "requirements/$name.txt" "$@" "requirements/$name.in"
done
