#!/bin/sh
# Make .node hold the JavaScript packages of the gateway's tests; do nothing when it already does.
#
# usage: tools/node.sh      from the root of the checkout
#
# Node itself comes from a wheel, in .venv-node: the tests are to run on the same one everywhere.
# No script of a package is run, and the lock file has a checksum for each.
set -eu

here=$(pwd -P)
stamp=.node/storemirror-stamp

state() {
    printf '%s\n' "$here"
    cksum requirements/node.txt tests/node/package.json tests/node/package-lock.json
}

[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(state)" ] && exit 0
sh tools/venv.sh node
echo "Setting up .node for the gateway's tests; once, about two minutes ..."
rm -rf .node
mkdir .node
cp tests/node/package.json tests/node/package-lock.json tests/node/.npmrc .node
PATH="$here/.venv-node/bin:$PATH" .venv-node/bin/npm ci --prefix .node --no-progress >.node/npm.log 2>&1 || {
    tail -n 20 .node/npm.log >&2
    exit 1
}
state >"$stamp"
