"""OHIF as a radiologist's viewer: its published build before an archive's DICOMweb, in headless Chromium.

One origin serves both, so that no cross-origin rule stands between viewer and archive.
"""

import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Page, sync_playwright

from tests.conftest import ROOT
from tests.peers import LOOPBACK, Orthanc

VERSION = "3.13.2"
DIST = ROOT / ".cache" / f"ohif-{VERSION}" / "package" / "dist"
CHROMIUM = Path("/usr/bin/chromium")
_SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
_CONFIG = """\
window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {},
  showStudyList: true, maxNumberOfWebWorkers: 2, showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false, showLoadingIndicator: true, investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'archive',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      friendlyName: 'archive', name: 'archive', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      wadoUriRoot: '/wado', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, omitQuotationForMultipartRequest: true,
      bulkDataURI: { enabled: true },
    },
  }],
};
"""


@contextmanager
def served(archive: Orthanc) -> Iterator[str]:
    """The address of OHIF with `archive` behind it."""
    assert DIST.is_dir(), f"OHIF is not at {DIST}: bash deploy/viewer.sh"
    server = ThreadingHTTPServer((LOOPBACK, 0), _handler(archive))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(archive: Orthanc) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/dicom-web/"):
                self._from_archive()
                return
            if path == "/app-config.js":
                self._answer(200, "text/javascript", _CONFIG.encode())
                return
            file = (DIST / path.lstrip("/")).resolve()
            if not file.is_relative_to(DIST) or not file.is_file():
                file = DIST / "index.html"  # the viewer's own routes
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, kind, file.read_bytes())

        def _from_archive(self) -> None:
            accept = self.headers.get("Accept", "*/*")
            try:
                got = requests.get(
                    f"http://{LOOPBACK}:{archive.http_port}{self.path}",
                    headers={"Accept": accept},
                    timeout=60,
                )
            except requests.RequestException:
                self._answer(502, "text/plain", b"")
                return
            # addresses in the answer are the archive's; the viewer must stay with this origin
            host = self.headers.get("Host", "")
            body = got.content
            if "json" in got.headers.get("Content-Type", ""):
                body = body.replace(f"{LOOPBACK}:{archive.http_port}".encode(), host.encode())
            self._answer(got.status_code, got.headers.get("Content-Type", "application/json"), body)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            # what the viewer's shared memory needs
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *words: Any) -> None:
            pass

    return Handler


@contextmanager
def browser(size: tuple[int, int] = (1280, 800)) -> Iterator[Page]:
    """A page of Debian's Chromium, software-rendered."""
    assert CHROMIUM.exists(), "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=[
                "--no-sandbox",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                "--ignore-gpu-blocklist",
            ],
        )
        try:
            yield chromium.new_page(viewport={"width": size[0], "height": size[1]})
        finally:
            chromium.close()
