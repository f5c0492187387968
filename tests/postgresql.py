"""A real PostgreSQL: a cluster of its own in a temporary folder, as an ordinary user."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from node.config import IndexSettings, Settings
from node.index import Index
from node.index.tables import metadata
from tests.peers import LOOPBACK, Server, wait_for

# Nothing here outlives the test, so nothing has to outlive the machine's power.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
}


def program(name: str) -> str:
    """Path of a program of Debian's newest PostgreSQL; the servers are not on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: float(p.parts[-3]))
    assert found, f"{name} is missing: apt-get install postgresql"
    return str(found[-1])


class PostgreSQL(Server):
    """A cluster that root starts as `postgres`: the server refuses to run as root."""

    def __init__(self) -> None:
        # Not below pytest's folders: those are closed to other users.
        super().__init__(Path(tempfile.mkdtemp(prefix="aenode-postgresql-")))
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._made = 0
        self._free: list[str] = []

    def start(self) -> None:
        command = [program("initdb"), "-D", "cluster", "-U", "aenode", "-A", "trust", "-N", "-E", "UTF8"]
        command += ["--locale=C.UTF-8"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60, **self._user)
        super().start()
        wait_for(self._ready, seconds=60, what="PostgreSQL to accept connections")
        with self.administrator("postgres") as connection:
            connection.execute("CREATE DATABASE made")
        # Tables are made once; databases for tests are copies, emptied and used again.
        Index.open(Settings(index=IndexSettings(url=self.url("made")))).close()

    def _ready(self) -> bool:
        words = [program("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        return subprocess.run(words, check=False, timeout=30).returncode == 0

    def command(self) -> list[str]:
        words = [f"{key}={value}" for key, value in _SETTINGS.items()]
        options = [word for setting in words for word in ("-c", setting)]
        return [program("postgres"), "-D", "cluster", "-p", str(self.port), "-k", str(self.folder), *options]

    def popen_options(self) -> Mapping[str, Any]:
        return self._user

    def stop(self) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGQUIT)  # at once: nothing has to be kept
            self._child.wait(20)
        super().stop()
        shutil.rmtree(self.folder)

    def administrator(self, database: str) -> "psycopg.Connection[Any]":
        """A connection for what no index does by itself."""
        return psycopg.connect(host=LOOPBACK, port=self.port, user="aenode", dbname=database, autocommit=True)

    def url(self, database: str) -> str:
        """`index.url` of a database."""
        return f"postgresql+psycopg://aenode@{LOOPBACK}:{self.port}/{database}"

    def new_url(self, *, empty: bool = False) -> str:
        """`index.url` of a new database, with the index's tables or without any."""
        self._made += 1
        name = f"index_{self._made}"
        with self.administrator("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else 'made'}")
        return self.url(name)

    def take(self) -> str:
        """`index.url` of an index without rows."""
        return self._free.pop() if self._free else self.new_url()

    def give_back(self, url: str) -> None:
        """Empty an index whose test is over."""
        names = ", ".join(table.name for table in metadata.sorted_tables)
        with self.administrator(url.rpartition("/")[2]) as connection:
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
        self._free.append(url)
