#!/bin/sh
# Clients of others, exactly pinned, into the environment: argument 1. Where they cannot be had, the
# tests that need them skip and say so.
set -u
venv=$1
here=$(dirname "$0")
PATH="$venv/bin:$PATH"
export PATH
# shellcheck disable=SC2046 # one word a package
npm install --prefix "$venv/npm" --silent --no-package-lock --ignore-scripts --no-audit --no-fund \
  $(cat "$here/npm.txt") >/dev/null 2>&1 ||
  echo "not installed: $(tr '\n' ' ' <"$here/npm.txt"); the tests that need them will skip" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade \
  --target "$venv/older" -r "$here/older.txt" 2>/dev/null ||
  echo "not installed: $(cat "$here/older.txt"); the tests that need it will skip" >&2
