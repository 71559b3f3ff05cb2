#!/bin/sh
# Install clients of others into the environment: argument 1. npm.txt and python_sdk_1.txt pin their
# versions, not those of what they depend on. Fails where one cannot be had: the tests that need it
# skip then, and the next run tries again.
set -u
venv=$1
here=$(dirname "$0")
PATH="$venv/bin:$PATH"
export PATH
status=0
# shellcheck disable=SC2046 # one word a package
npm install --prefix "$venv/npm" --loglevel=error --no-package-lock --ignore-scripts --no-audit \
  --no-fund $(cat "$here/npm.txt") >/dev/null || status=1
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade \
  --target "$venv/python_sdk_1" -r "$here/python_sdk_1.txt" || status=1
[ "$status" = 0 ] || echo "not installed: a client; the tests that need it will skip" >&2
exit "$status"
