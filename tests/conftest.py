"""Fixtures shared by all houses."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import Orthanc, RedisServer
from tests.postgresql import PostgreSQL

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored; the tests of it need it heard."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data: $AENODE_DATA, else ../shared/data. It is no part of the project."""
    folder = Path(os.environ.get("AENODE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real test data is not at {folder}; set AENODE_DATA to have this test run")
    return folder


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """A running Orthanc with an empty store, to which any peer may send."""
    with Orthanc(tmp_path / "orthanc") as server:
        yield server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running redis-server with an empty store."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One running PostgreSQL for all tests; each takes a database of its own."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def index_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """`index.url` of an index of its own for each test, on both databases."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    url = server.take()
    yield url
    server.give_back(url)
