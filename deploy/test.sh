#!/usr/bin/env bash
# Installs what the tests need and runs them: style, types, architecture, then pytest.
# usage: bash deploy/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
need() { # need FILE PACKAGE…: the packages are installed where the file is absent
  [ -e "$1" ] || packages+=("${@:2}")
}
need /usr/bin/storescu dcmtk
need /usr/sbin/Orthanc orthanc
need /usr/share/orthanc/plugins/libOrthancDicomWeb.so orthanc-dicomweb
need /usr/bin/DicomSRValidator pixelmed-apps default-jre-headless
need /usr/bin/chromium chromium
command -v npm >/dev/null || packages+=(npm)
need /usr/bin/redis-server redis-server
need /usr/lib/postgresql postgresql
need /usr/bin/openssl openssl
need /usr/sbin/nginx nginx-light
need /usr/bin/systemd-analyze systemd
need /usr/bin/docker-compose docker-compose

if [ "${#packages[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]}" >&2
    # No service is started by the installation: the tests start their own.
    policy=/usr/sbin/policy-rc.d; made=""
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    [ -z "$made" ] || rm -f "$policy"
  else
    echo "These Debian packages are missing, and without root they cannot be installed here:" >&2
    echo "    sudo apt-get install ${packages[*]}" >&2
    exit 2
  fi
fi

bash deploy/setup.sh worker,htj2k,postgresql,test
bash deploy/viewer.sh
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
lint-imports
python -m pytest "$@"
