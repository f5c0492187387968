#!/usr/bin/env bash
# Sets up a virtual environment in .venv and installs aenode into it. Used by demo.sh and test.sh.
# usage: deploy/setup.sh [EXTRAS]      EXTRAS: worker (default), or test,dev,postgresql
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-worker}"

say() { printf '%s\n' "$*" >&2; }

python=""
for candidate in python3.12 python3.11 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python="$candidate"; break
  fi
done
[ -n "$python" ] || { say "aenode needs Python 3.11 or newer (Debian 12, Ubuntu 24.04): apt-get install python3 python3-venv"; exit 2; }

if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv 2>/dev/null; then
  rm -rf .venv
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    "$python" -m venv .venv
  else
    say "the module venv is missing: apt-get install python3-venv"; exit 2
  fi
fi

# The stamp makes a second run quick: nothing is asked of the network when nothing changed.
stamp=".venv/.installed-$(printf '%s' "$extras" | tr -c 'a-z' '-')"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  say "installing aenode and what it needs into .venv (some minutes the first time)"
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  # Without an NVIDIA driver the CUDA build of torch is only weight: take the CPU build where it is offered.
  if ! command -v nvidia-smi >/dev/null; then
    .venv/bin/python -m pip install -q --retries 1 'torch==2.13.0' --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null || true
  fi
  .venv/bin/python -m pip install -q -e ".[$extras]"
  touch "$stamp"
fi
