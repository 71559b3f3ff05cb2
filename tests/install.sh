#!/bin/sh
# Install what requirements.lock names into an environment. uv takes a sixth of the time of pip (on a
# busy host a minute or more); where it cannot be installed or does not reach the index, pip does it.
set -eu
python=$1/bin/python
install() {
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$1"
}
awk '/^[^ ]/ { wanted = /^uv==/ } wanted' requirements.lock >"$1/uv.txt"
if install "$1/uv.txt" 2>/dev/null &&
  "$1/bin/uv" pip install --quiet --python "$python" --require-hashes -r requirements.lock 2>/dev/null; then
  exit 0
fi
install requirements.lock
