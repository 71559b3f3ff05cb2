#!/bin/sh
# Debian packages that some tests need. Where they cannot be installed those tests skip and say so.
set -u
missing=""
for program in strace tmux chromium; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq >/dev/null 2>&1
  for program in $missing; do # one by one: a large one that fails must not take a small one along
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$program" >/dev/null 2>&1
  done
fi
for program in $missing; do
  command -v "$program" >/dev/null 2>&1 || echo "not installed: $program; the tests that need it will skip" >&2
done
exit 0
