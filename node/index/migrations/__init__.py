"""Versions of the index's tables, applied by `upgrade` when an index is opened."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, inspect, text

from node.errors import AenodeError

HEAD = "0002"  # the newest file of versions/


def version(connection: Connection) -> str | None:
    """The version that the index is at, or None where it has no tables yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def scripts() -> Config:
    """Alembic's configuration: the scripts lie beside this file and nothing comes from an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def upgrade(connection: Connection) -> None:
    """Bring the tables to HEAD inside the caller's transaction.

    Raises AenodeError where the index was written by a newer release.
    """
    now = version(connection)
    if now == HEAD:
        return
    config = scripts()
    if now is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(now)
        except CommandError:
            raise AenodeError(
                f"the index is at version {now}, written by a newer release; this one knows {HEAD}"
            ) from None
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
