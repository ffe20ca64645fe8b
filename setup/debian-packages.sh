#!/bin/sh
# Installs the named Debian packages that are missing, if root or password-less sudo is at hand; otherwise says which are missing.
# Usage: setup/debian-packages.sh required|optional PACKAGE...      optional: exit 0 all the same
set -eu
need=$1
shift
missing=
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
root=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        root=sudo
    else
        echo "invigil: missing Debian packages:$missing"
        echo "invigil: hint: apt-get install$missing"
        [ "$need" = optional ]
        exit
    fi
fi
echo "installing Debian packages:$missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { $root apt-get update -q && $root apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log"
    echo "invigil: error: apt-get could not install:$missing"
    [ "$need" = optional ]
    exit
fi
rm -f "$log"
