#!/bin/sh
# Debian packages that some tests need. Where they cannot be installed those tests skip and say so.
set -u
missing=""
for program in strace chromium; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  # shellcheck disable=SC2086
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing; } >/dev/null 2>&1 && exit 0
fi
echo "not installed:$missing; the tests that need them will skip" >&2
