"""Runs the migrations on the connection that `upgrade` hands over; Alembic loads this file."""

from alembic import context

from node.index.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
