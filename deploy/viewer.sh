#!/usr/bin/env bash
# Puts the published build of the OHIF viewer into .cache, where the tests of what a radiologist sees find it.
set -euo pipefail
cd "$(dirname "$0")/.."

version=3.13.2
target=".cache/ohif-$version"
[ -d "$target/package/dist" ] && exit 0
mkdir -p "$target"
file=$(npm pack --silent --pack-destination "$target" "@ohif/app@$version")
tar -xzf "$target/$file" -C "$target" package/dist
rm "$target/$file"
