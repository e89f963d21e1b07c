#!/bin/sh
# Build the folder that `firebase deploy --only functions` uploads: functions/ with the package.
#
# usage: tools/functions.sh [FOLDER]      FOLDER: dist/functions when not given
#
# Google's build installs requirements.txt from a package index, and StoreMirror is on none: so
# the package itself goes along, as a folder beside main.py.  firebase.json runs this before each
# deployment.  Firebase loads the functions with the folder's venv, made by `make functions`.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd -P)
folder=${1:-$here/dist/functions}
mark=$folder/.storemirror-functions

if [ -e "$folder" ] && [ ! -e "$mark" ] && [ -n "$(ls -A "$folder")" ]; then
    echo "$folder holds something else than StoreMirror's functions; name another folder" >&2
    exit 1
fi
mkdir -p "$folder"
touch "$mark"
# A file that is gone from functions/ must not be deployed any more.
find "$folder" -mindepth 1 -maxdepth 1 ! -name "${mark##*/}" -exec rm -rf {} +
cp -R "$here/functions/." "$folder"
cp -R "$here/src/storemirror" "$folder/storemirror"
rm -rf "$folder/venv"
find "$folder" -name __pycache__ -prune -exec rm -rf {} +
if [ -d "$here/.venv-functions" ]; then
    ln -s "$here/.venv-functions" "$folder/venv"
fi
