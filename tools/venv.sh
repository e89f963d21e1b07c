#!/bin/sh
# Make a virtual environment hold one requirement file; do nothing when it already does.
#
# usage: tools/venv.sh runtime|dev|functions|peers|tsql|node      from the root of the checkout
#
# `runtime` and `dev` are .venv, with this checkout; `dev` holds everything of `runtime`.
# `functions` is .venv-functions: what is deployed as Firebase Functions, and nothing else.
# `peers` is .venv-peers: who takes part in `PEERS=1 make bench`; they pin other versions of ours.
# `tsql` is .venv-tsql: what judges T-SQL where no SQL Server is (`make tsql`).
# `node` is .venv-node: Node and npm, for the JavaScript that tests run (tools/node.sh).
# The stamp holds what the environment was made of.  It names the folder too: a virtual
# environment does not survive a move.
set -eu

wanted=$1
python=${PYTHON:-}
here=$(pwd -P)
case $wanted in
functions)
    venv=.venv-functions
    requirements=functions/requirements.txt
    ;;
peers | tsql | node)
    venv=.venv-$wanted
    requirements=requirements/$wanted.txt
    ;;
*)
    venv=.venv
    requirements=requirements/$wanted.txt
    ;;
esac
stamp=$venv/storemirror-stamp

state_of() {
    printf '%s\n' "$1" "$here"
    case $1 in
    runtime | dev) cksum "requirements/$1.txt" requirements/runtime.txt pyproject.toml ;;
    *) cksum "$requirements" ;;
    esac
}

is_ready() {
    [ -f "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null || return 1
    installed=$(cat "$stamp")
    [ "$installed" = "$(state_of "$wanted")" ] || {
        [ "$wanted" = runtime ] && [ "$installed" = "$(state_of dev)" ]
    }
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${python:+"$python"} python3 python3.11 python3.12 python3.13 python3.14; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        [ -z "$python" ] || break
    done
    found=$("${python:-python3}" --version 2>/dev/null) || found="not there"
    echo "StoreMirror needs Python 3.11 or newer; ${python:-python3} is $found." \
        "make PYTHON=/path/to/python3 names another one." >&2
    exit 1
}

# Debian splits ensurepip off; then the system's own pip can still fill the environment.
make_venv() {
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --without-pip "$venv"
    else
        echo "$python has neither ensurepip nor pip.  As root: apt-get install python3-venv" >&2
        exit 1
    fi
}

install() {
    if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        "$venv/bin/python" -m pip "$@"
    else
        "$python" -m pip --python "$venv/bin/python" "$@"
    fi
}

quietly_install() {
    install install -qq --disable-pip-version-check --no-input "$@"
}

is_ready && exit 0
python=$(find_python)
echo "Setting up $venv for $wanted with $("$python" --version); once, about a minute ..."
if [ -e "$venv" ]; then
    [ -f "$venv/pyvenv.cfg" ] || { echo "$venv is no virtual environment; move it away" >&2; exit 1; }
    is_new_enough "$venv/bin/python" && grep -qF "$here/$venv" "$venv/bin/activate" || rm -rf "$venv"
fi
[ -e "$venv" ] || make_venv
rm -f "$stamp"
case $wanted in
tsql)
    # All of it is listed, but not what mssql-cli asks for beside its parser (pyproject.toml).
    quietly_install --no-compile --no-deps --only-binary :all: --require-hashes -r "$requirements"
    ;;
functions | peers | node)
    # Most of it is never imported: compiling all would take half of the time.
    quietly_install --no-compile --require-hashes -r "$requirements"
    ;;
*)
    quietly_install --require-hashes -r "$requirements"
    quietly_install --no-deps --no-build-isolation -e .
    ;;
esac
state_of "$wanted" >"$stamp"
