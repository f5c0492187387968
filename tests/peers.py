"""Real peers: started, waited for, and stopped again."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

T = TypeVar("T")
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A TCP port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for(ask: Callable[[], T], *, seconds: float = 30, every: float = 0.02, what: str = "") -> T:
    """The first truthy answer of `ask`; AssertionError when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := ask():
            return answer
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or ask}"
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether something accepts TCP connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def dcmtk(tool: str) -> str:
    """Path of a DCMTK program. pynetdicom installs commands of the same names, so PATH is not asked."""
    path = Path("/usr/bin") / tool
    assert path.exists(), f"{tool} is missing: apt-get install dcmtk"
    return str(path)


class Server:
    """A child process that listens on a port, as a context."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log.txt"
        self._child: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line."""
        raise AssertionError

    def popen_options(self) -> Mapping[str, Any]:
        """More of how to start it, such as as whom."""
        return {}

    def start(self) -> None:
        """Start and wait until it listens."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, **self.popen_options()
            )
        wait_for(lambda: self._alive() and listens(self.port), seconds=60, what=self.log.read_text())

    def _alive(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, self.log.read_text()
        return True

    def stop(self) -> None:
        """Stop and wait until it is gone."""
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(20)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RedisServer(Server):
    """Debian's redis-server."""

    def command(self) -> list[str]:
        binary = shutil.which("redis-server")
        assert binary, "redis-server is missing: apt-get install redis-server"
        return [binary, "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder), "--save", ""]

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"


class StoreSCP(Server):
    """DCMTK's storescp, writing to `folder`/received."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        super().__init__(folder, port)
        self.received = folder / "received"
        self.received.mkdir(exist_ok=True)
        self.options = options

    def command(self) -> list[str]:
        return [dcmtk("storescp"), *self.options, "-od", str(self.received), str(self.port)]


class Orthanc(Server):
    """Debian's Orthanc with DICOMweb; C-STORE, C-FIND and REST open on loopback."""

    ae_title = "ORTHANC"

    def __init__(self, folder: Path, port: int | None = None, **settings: object) -> None:
        super().__init__(folder, port)
        self.http_port = free_port()
        self.settings: dict[str, object] = {
            "Name": "archive",
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "HttpPort": self.http_port,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "OverwriteInstances": False,
            "Plugins": [str(p) for p in Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so")],
            **settings,
        }

    def command(self) -> list[str]:
        binary = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        assert binary, "Orthanc is missing: apt-get install orthanc orthanc-dicomweb"
        config = self.folder / "orthanc.json"
        config.write_text(json.dumps(self.settings))
        return [binary, str(config)]

    def start(self) -> None:
        super().start()
        wait_for(lambda: listens(self.http_port), seconds=60, what="Orthanc's REST interface")

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def get(self, path: str) -> Any:
        """The JSON answer to a GET of Orthanc's REST interface."""
        answer = requests.get(f"http://{LOOPBACK}:{self.http_port}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def file(self, instance: str) -> bytes:
        """The Part-10 file of an instance, by Orthanc's id."""
        answer = requests.get(f"http://{LOOPBACK}:{self.http_port}/instances/{instance}/file", timeout=30)
        answer.raise_for_status()
        return answer.content

    def instances(self) -> list[dict[str, Any]]:
        """All instances that it holds, with their main tags."""
        found: list[dict[str, Any]] = self.get("/instances?expand")
        return found


class Nginx(Server):
    """Debian's nginx as HTTPS before an Orthanc, whose own HTTPS crashes at Debian 12's OpenSSL."""

    def __init__(
        self,
        folder: Path,
        orthanc: Orthanc,
        certificate: Path,
        key: Path,
        *,
        rules: str = "",
        ca: Path | None = None,
    ) -> None:
        super().__init__(folder)
        verify = f"ssl_verify_client on; ssl_client_certificate {ca};" if ca else ""
        self.settings = f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{}}
http {{
  access_log off; client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen {LOOPBACK}:{self.port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; {verify}
    location / {{ {rules} proxy_pass http://{LOOPBACK}:{orthanc.http_port}; }}
  }}
}}
"""

    def command(self) -> list[str]:
        binary = Path("/usr/sbin/nginx")
        assert binary.exists(), "nginx is missing: apt-get install nginx-light"
        config = self.folder / "nginx.conf"
        config.write_text(self.settings)
        return [str(binary), "-c", str(config), "-e", str(self.folder / "error.log")]

    @property
    def url(self) -> str:
        """Of Orthanc's DICOMweb services."""
        return f"https://{LOOPBACK}:{self.port}/dicom-web"
