#!/bin/sh
# Run the tests: as an ordinary user, since root may write what users may not. Started by root they
# run as the user registry-tests in a copy of the checkout; only what needs root (mounts, files of
# other users) runs as root, in a run of its own. Arguments go to pytest.
set -eu
venv=${VENV:-.venv}
python=$venv/bin/python
user=registry-tests

if [ "$(id -u)" != 0 ]; then
  make -s VENV="$venv" "$venv/.clients" || true
  exec "$python" -m pytest -n 2 --dist worksteal "$@"
fi

as_user() {
  setpriv --reuid="$user" --regid="$user" --init-groups \
    env HOME="$home" USER="$user" LOGNAME="$user" VENV="$venv" \
    PATH=/usr/local/bin:/usr/bin:/bin LEGACY_SAMPLES="$home/legacy_samples" "$@"
}

# Set `interpreter` to one of the same version that the user can run. Where root's own lies in
# root's home and there is no other, it is copied, and finds its shared library beside itself.
find_interpreter() {
  own=$("$python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
  name=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  for interpreter in "$own" "/usr/local/bin/$name" "/usr/bin/$name"; do
    as_user "$interpreter" -c "import ensurepip, sqlite3, ssl" 2>/dev/null && return
  done
  prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
  copy="$home/$name"
  mkdir -p "$copy"
  tar -c -C "$prefix" --exclude=site-packages --exclude=test bin lib | tar -x -C "$copy"
  interpreter="$copy/bin/$name"
  "$python" - "$interpreter" "$prefix/lib" <<'END'
import pathlib, sys
program, library = pathlib.Path(sys.argv[1]), sys.argv[2].encode()
beside = b"$ORIGIN/../lib".ljust(len(library), b"\0")
program.write_bytes(program.read_bytes().replace(library + b"\0", beside + b"\0"))
END
}

command -v setpriv >/dev/null || {
  echo "setpriv (util-linux) is missing: run the tests as an ordinary user" >&2
  exit 1
}
id "$user" >/dev/null 2>&1 || useradd --create-home --user-group "$user"
home=$(getent passwd "$user" | cut -d: -f6)
[ -d "$home" ] || {
  echo "the user $user has no home" >&2
  exit 1
}
checkout="$home/checkout"
# What is there is replaced, but for the environment, which takes a minute to make.
mkdir -p "$checkout"
find "$checkout" -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
tar -c --exclude='./.venv*' --exclude=./.git --exclude=__pycache__ . | tar -x -C "$checkout"
samples=${LEGACY_SAMPLES:-../shared/legacy_samples}
rm -rf "$home/legacy_samples"
[ ! -d "$samples" ] || cp -r "$samples" "$home/legacy_samples"
chown -R "$user:$user" "$checkout" "$home/legacy_samples" 2>/dev/null || true

echo "== as the user $user: all that does not need root" >&2
find_interpreter
as_user make -s -C "$checkout" PYTHON="$interpreter" VENV="$venv" "$venv/.ready"
status=0
(cd "$checkout" && as_user sh tests/run.sh -m "not root" "$@") || status=$?
[ "$status" = 5 ] && [ $# -gt 0 ] && status=0 # the arguments name only tests that need root

echo "== as root: what needs it" >&2
as_root=0
"$python" -m pytest -n 2 --dist worksteal -m root "$@" || as_root=$?
[ "$as_root" = 5 ] && [ $# -gt 0 ] && as_root=0 # the arguments name none of them
[ "$status" != 0 ] || status=$as_root
exit "$status"
