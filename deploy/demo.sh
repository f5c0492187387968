#!/usr/bin/env bash
# Sets up aenode on a fresh Debian or Ubuntu and shows the main job.
# usage: bash deploy/demo.sh [FOLDER with a DICOM series] [options of `aenode demo`]
set -euo pipefail
folder="$PWD"
cd "$(dirname "$0")/.."
bash deploy/setup.sh worker
bin="$PWD/.venv/bin"
cd "$folder"
exec "$bin/aenode" demo "$@"
