"""A running receiver on a port of its own, and data sets to send to it."""

import json
import os
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from node.config_file import SettingsFile
from node.entities import Instance
from node.index import Index
from node.receive.server import Server
from node.spool import Spool
from tests.peers import LOOPBACK, dcmtk, wait_for

# Debian's DCMTK waits 45 ms for each instance otherwise.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
CONFIG = """
[node]
bind = "127.0.0.1:0"
data = "data"
{node}
[receive]
{receive}
[[peers]]
name = "sender"
ae_title = "SENDER"
[[peers]]
name = "modality"
ae_title = "MODALITY"
{more}
"""


class Receiver:
    """The server in a thread, with a real index and spool below `folder`."""

    def __init__(self, folder: Path, node: str = "", more: str = "", **receive: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._node = node
        self._more = more  # further peers and tables
        settings: dict[str, object] = {"min_free": "1 MiB", "idle_timeout_seconds": 10, **receive}
        self.config = folder / "config.toml"
        self.configure(settings)
        self.file = SettingsFile.open(self.config)
        self.spool = Spool(self.file.settings.node.data)
        self.stop = threading.Event()

    def configure(self, receive: dict[str, object]) -> None:
        # TOML writes these kinds of values as JSON does.
        lines = [f"{key} = {json.dumps(value)}" for key, value in receive.items()]
        self.config.write_text(CONFIG.format(node=self._node, receive="\n".join(lines), more=self._more))

    def __enter__(self) -> Self:
        self.index = Index.open(self.file.settings)
        self.server = Server(self.file, self.index)
        self.port = self.server.port
        self._thread = threading.Thread(target=self.server.run, args=(self.stop,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the receiver did not stop"
        self.index.close()

    def spooled(self) -> list[Instance]:
        """What the spool holds."""
        return list(self.spool.walk())

    def indexed(self, instances: Iterable[Instance]) -> bool:
        """Whether the index lists all of these."""
        paths = {instance.path for instance in instances}
        return self.index.known_paths(paths) == paths

    def wait_indexed(self, count: int) -> list[Instance]:
        """The spool's instances, once there are so many and the index lists them."""
        wait_for(lambda: len(list(self.spool.paths())) >= count, what=f"{count} instances in the spool")
        found = self.spooled()
        assert len(found) == count
        wait_for(lambda: self.indexed(found), what="the index")
        return found

    def files_of(self, images: Iterable[Dataset]) -> list[Path]:
        """The spool's files of these images, once the index lists them all."""
        uids = {ds.SOPInstanceUID for ds in images}
        found = [i for i in self.spooled() if i.sop_instance_uid in uids]
        wait_for(lambda: self.indexed(found), what="the index")
        return [self.spool.data / i.path for i in found]

    def data_set(self, instance: Instance) -> bytes:
        """The data set's bytes in the spool."""
        return data_set_of(self.spool.data / instance.path)


def data_set_of(path: Path) -> bytes:
    """The bytes of a Part-10 file behind its file meta information."""
    raw = path.read_bytes()
    assert raw[128:132] == b"DICM"
    length = int.from_bytes(raw[140:144], "little")
    return raw[144 + length :]


def encoded(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """A data set's bytes in an uncompressed or the deflated transfer syntax."""
    plain = Dataset()
    plain.update({element.tag: element for element in ds if element.tag.group > 2})
    implicit, deflated = syntax == ImplicitVRLittleEndian, syntax == DeflatedExplicitVRLittleEndian
    raw = encode(plain, implicit, syntax.is_little_endian, deflated)
    assert raw is not None
    return raw


def send(port: int, *words: str | Path, tool: str = "storescu") -> subprocess.CompletedProcess[str]:
    """Run a DCMTK sender as SENDER to AENODE; later titles among the words win."""
    command = [dcmtk(tool), "-aet", "SENDER", "-aec", "AENODE", *map(str, words[:-1]), LOOPBACK, str(port)]
    command += [str(words[-1])] if words else []
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
