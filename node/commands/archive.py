"""The archive beside the demo: Orthanc where it is installed, else a folder behind a C-STORE SCP."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Protocol

from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.transport import ThreadedAssociationServer

from node.config import Peer
from node.errors import AenodeError

_HOST = "127.0.0.1"


def free_port() -> int:
    """A TCP port of loopback that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


class Archive(Protocol):
    """What the demo asks of an archive."""

    name: str
    peer: Peer
    page: str

    def fetch(self, sop_instance_uid: str) -> bytes:
        """The Part-10 file of one instance. Raises AenodeError where the archive does not hold it."""

    def stop(self) -> None:
        """End it; what it holds stays on the disk."""


def start(folder: Path) -> Archive:
    """Start the best archive that this machine has, with its files in `folder`."""
    folder.mkdir(parents=True)
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return OrthancArchive(folder, program) if program else FolderArchive(folder)


class OrthancArchive:
    """Orthanc, on loopback ports of its own."""

    def __init__(self, folder: Path, program: str) -> None:
        self.name = "Orthanc"
        self._http = free_port()
        self.page = f"http://{_HOST}:{self._http}/app/explorer.html"
        port = free_port()
        self.peer = Peer(name="archive", ae_title="ORTHANC", address=f"{_HOST}:{port}")
        settings = {
            "Name": "aenode demo",
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self._http,
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": False,
        }
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        with (folder / "orthanc.log").open("wb") as log:
            self._child = subprocess.Popen([program, str(config)], stdout=log, stderr=log)  # noqa: S603 - found on this machine
        self._wait(folder / "orthanc.log")

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._child.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex((_HOST, self._http)) == 0:
                    return
            time.sleep(0.05)
        self.stop()
        raise AenodeError(f"Orthanc did not start; its log is {log}")

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://{_HOST}:{self._http}{path}", body, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def fetch(self, sop_instance_uid: str) -> bytes:
        """The Part-10 file of one instance, over Orthanc's REST interface."""
        found = json.loads(self._ask("/tools/lookup", sop_instance_uid.encode()))
        if not found:
            raise AenodeError(f"Orthanc does not hold {sop_instance_uid}")
        return self._ask(found[0]["Path"] + "/file")

    def stop(self) -> None:
        """End Orthanc."""
        self._child.terminate()
        self._child.wait()


class FolderArchive:
    """A plain C-STORE SCP that writes each instance into a folder."""

    def __init__(self, folder: Path) -> None:
        self.name = "a plain storage SCP (Orthanc is not installed)"
        self.page = ""
        self._folder = folder
        ae = AE(ae_title="ARCHIVE")
        for context in StoragePresentationContexts:
            assert context.abstract_syntax is not None
            ae.add_supported_context(context.abstract_syntax)
        server = ae.start_server((_HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        assert isinstance(server, ThreadedAssociationServer)
        self._server = server
        self.peer = Peer(name="archive", ae_title="ARCHIVE", address=f"{_HOST}:{server.server_address[1]}")

    def _store(self, event: evt.Event) -> int:
        uid = str(event.file_meta.MediaStorageSOPInstanceUID)
        if not uid.replace(".", "").isdigit():
            return 0xC000
        (self._folder / f"{uid}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    def fetch(self, sop_instance_uid: str) -> bytes:
        """The Part-10 file of one instance."""
        file = self._folder / f"{sop_instance_uid}.dcm"
        if not file.exists():
            raise AenodeError(f"the archive does not hold {sop_instance_uid}")
        return file.read_bytes()

    def stop(self) -> None:
        """End the SCP."""
        self._server.shutdown()
