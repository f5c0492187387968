"""The database: its versions, several processes and threads, damage, speed of writing."""

import multiprocessing
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from node.config import IndexSettings, Node, Settings
from node.errors import AenodeError
from node.index import Index
from node.index.migrations import HEAD, scripts
from node.index.tables import metadata
from node.states import SeriesState
from tests.node.records import after, index_in, instance
from tests.peers import free_port, wait_for
from tests.postgresql import PostgreSQL

WRITERS, BATCHES, BATCH = 3, 12, 10


def write_a_share(data: Path, url: str, number: int, begin: object) -> None:
    """One process's share: every other instance of a common series, and a series of its own."""
    begin.wait(30)  # type: ignore[attr-defined]  # a barrier; multiprocessing gives its type no name
    index = index_in(data, url)
    for batch in range(BATCHES):
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        index.add_instances([instance(n * WRITERS + number, association=f"p{number}") for n in numbers])
        index.add_instances([instance(n, series=f"1.{number}") for n in numbers])
        for revision in index.series_in(SeriesState.RECEIVING)[:1]:
            index.note(revision, after(batch), "still coming")
    index.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_share_an_index_from_its_first_moment(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    """Processes that open an empty index at once and write one series lose nothing and collide nowhere."""
    url = database
    if database == "postgresql":
        url = request.getfixturevalue("postgresql").new_url(empty=True)
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(WRITERS)
    writers = [context.Process(target=write_a_share, args=(tmp_path, url, n, begin)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    index = index_in(tmp_path, url)
    revisions = {r.series_instance_uid: r for r in index.series_in(SeriesState.RECEIVING)}
    each = BATCHES * BATCH
    assert {uid: r.instances for uid, r in revisions.items()} == {
        "1.2.3.4": WRITERS * each,
        **{f"1.{n}": each for n in range(WRITERS)},
    }
    for revision in revisions.values():
        assert revision.revision == 1
        assert len(index.instances_of(revision.id)) == revision.instances
    index.close()


def write_until_killed(data: Path, url: str) -> None:
    """A process that lists one series in batches of 10 until it is killed."""
    index = index_in(data, url)
    for batch in range(10_000):
        index.add_instances([instance(n) for n in range(batch * 10, (batch + 1) * 10)])


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path, index_url: str) -> None:
    """A process killed while it writes leaves an index that opens, without half a batch, and unlocked."""
    index = index_in(tmp_path, index_url)
    writer = multiprocessing.get_context("spawn").Process(
        target=write_until_killed, args=(tmp_path, index_url)
    )
    writer.start()
    wait_for(lambda: index.status().instances >= 50)
    writer.kill()
    writer.join(30)
    index.close()
    again = index_in(tmp_path, index_url)
    (revision,) = again.series_in(SeriesState.RECEIVING)
    assert revision.instances == len(again.instances_of(revision.id)) == again.status().instances
    assert revision.instances % 10 == 0
    again.add_instances([instance(n) for n in range(revision.instances + 1)])
    assert again.series_revision(revision.id).instances == revision.instances + 1
    again.close()


def test_threads_share_an_index(tmp_path: Path, index_url: str) -> None:
    """Threads that write and read one index at once see every instance in the end."""
    index = index_in(tmp_path, index_url)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for n in range(30):
                index.add_instances([instance(n * 8 + number)])
                index.status()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert revision.instances == 240
    index.close()


def test_an_index_is_opened_again_as_it_was(tmp_path: Path, index_url: str) -> None:
    """What was written is there after the index is closed and opened again."""
    index = index_in(tmp_path, index_url)
    index.add_instances([instance(0)])
    before = index.series_in(SeriesState.RECEIVING)
    index.close()
    again = index_in(tmp_path, index_url)
    assert again.series_in(SeriesState.RECEIVING) == before
    again.close()


def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    """What the migrations make and what tables.py says are the same, and HEAD is the newest script."""
    index_in(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'index.sqlite'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert ScriptDirectory.from_config(scripts()).get_current_head() == HEAD


def test_an_index_of_the_first_version_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    """Rows of 0001 are there after the upgrade, with the defaults of the new columns."""
    engine = create_engine(f"sqlite:///{tmp_path / 'index.sqlite'}")
    config = scripts()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in (
            "INSERT INTO series VALUES (1, '1.2', '1', 1, 'ROUTED', 'CT1', 'AENODE', 1, 1, 1, 0, '', '')",
            "INSERT INTO jobs VALUES ('j', 1, 'p', 'r', '[]', 'DONE', 1, NULL, 1, '', '{}', 1, 1, 1, 0)",
            "INSERT INTO artifacts VALUES (1, 'j', '1.3', '1.4', '1.5', '1.6', 'derived', 'results/j/0.dcm')",
            "INSERT INTO deliveries VALUES (1, 1, 'j', 'archive', 'SENT', 1, 1, 0, '', 1, 1)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    index = index_in(tmp_path)
    (delivery,) = index.due_proofs("archive", after(0), 10)
    assert (delivery.proofs, delivery.losses, delivery.state) == (0, 0, "SENT")
    job = index.job("j")
    assert job is not None
    assert job.priority == 1
    index.close()


def test_the_migrations_make_the_tables_on_postgresql(postgresql: PostgreSQL) -> None:
    """There too, what the migrations make and what tables.py says are the same."""
    engine = create_engine(postgresql.take())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_postgresql_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    """One sentence, with the address."""
    url = f"postgresql+psycopg://aenode:secret@127.0.0.1:{free_port()}/aenode"
    with pytest.raises(AenodeError, match=r"the index .*aenode:\*\*\*@127") as caught:
        index_in(tmp_path, url)
    assert "secret" not in str(caught.value)


def test_an_index_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    """An index at a version that this release does not know is left alone, with a sentence."""
    index_in(tmp_path).close()
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(AenodeError, match="version 9999, written by a newer release"):
        index_in(tmp_path)


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    """A file that is no database gives one sentence with its path."""
    (tmp_path / "index.sqlite").write_bytes(b"not a database, " * 1000)
    with pytest.raises(AenodeError, match=r"index\.sqlite cannot be used: file is not a database"):
        index_in(tmp_path)


def test_an_index_lies_where_its_url_says(tmp_path: Path) -> None:
    """A sqlite:/// URL names the file; its folder is made."""
    path = tmp_path / "elsewhere" / "my.sqlite"
    settings = Settings(node=Node(data=tmp_path), index=IndexSettings(url=f"sqlite:///{path}"))
    Index.open(settings).close()
    assert path.exists()
    assert not (tmp_path / "index.sqlite").exists()


def test_a_promise_is_synced_and_a_listing_is_not(tmp_path: Path) -> None:
    """The journal is a WAL; a move commits with synchronous FULL (2), add_instances with NORMAL (1)."""
    index = index_in(tmp_path)
    modes = []
    for durable in (True, False):
        with index._write(durable=durable) as connection:
            modes.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
    with index._read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert modes == [2, 1]
    index.close()


def test_a_series_of_2000_is_listed_at_more_than_300_a_second(tmp_path: Path) -> None:
    """2000 instances in batches of 20, a commit each, are listed in less than 6 seconds."""
    index = index_in(tmp_path)
    batches = [[instance(n) for n in range(start, start + 20)] for start in range(0, 2000, 20)]
    began = time.perf_counter()
    for batch in batches:
        index.add_instances(batch)
    seconds = time.perf_counter() - began
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert len(index.instances_of(revision.id)) == 2000
    assert seconds < 6
    index.close()
