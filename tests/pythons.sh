#!/bin/sh
# Run the tests on every Python that pyproject.toml names, each in an environment of its own. One
# that is not installed is named and counted. Arguments go to pytest. With OTHERS=1 the Python of
# .venv, on which `make test` runs, is left out.
set -u
own=""
[ -z "${OTHERS:-}" ] || own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
failed="" missing="" passed=""
for version in $(sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml); do
  [ "$version" != "$own" ] || continue
  python=""
  for candidate in "$(command -v "python$version")" "$HOME/.pyenv/versions/$version".*/bin/python; do
    if "$candidate" -c "import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, ${version#3.}))" 2>/dev/null; then
      python=$candidate
    fi
  done
  if [ -z "$python" ]; then
    missing="$missing $version"
    continue
  fi
  echo "== Python $version" >&2
  if make -s test PYTHON="$python" VENV=".venv-$version" ARGS="$*"; then
    passed="$passed $version"
  else
    failed="$failed $version"
  fi
done
echo "Pythons passed:${passed:- none}; failed:${failed:- none}; not installed, skipped:${missing:- none}"
[ -z "$failed" ] && { [ -n "$passed" ] || [ -n "${OTHERS:-}" ]; }
