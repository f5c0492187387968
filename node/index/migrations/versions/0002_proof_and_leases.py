"""Proof of deliveries, breakers, leases, priorities, retention."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("instances", sa.Column("purged_at", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("not_before", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("retires", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("retired_at", sa.BigInteger(), nullable=True))
    op.add_column("deliveries", sa.Column("priority", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("deliveries", sa.Column("proofs", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "breakers",
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("probe_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("peer"),
    )
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid"),
    )
    op.create_table(
        "commitment_items",
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("delivery_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(["transaction_uid"], ["commitments.transaction_uid"]),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"]),
        sa.PrimaryKeyConstraint("transaction_uid", "delivery_id"),
    )
    op.create_index("instances_sender", "instances", ["calling_ae"], unique=False)
    op.create_index("associations_closed", "associations", ["closed_at"], unique=False)
    waiting = sa.text("retires IS NOT NULL AND retired_at IS NULL")
    op.create_index(
        "jobs_retiring", "jobs", ["state"], unique=False, sqlite_where=waiting, postgresql_where=waiting
    )
