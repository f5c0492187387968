"""The index's tables, the same on SQLite and PostgreSQL.

Times are stored as whole microseconds since 1970 UTC, so that both databases sort and compare
them alike. An instance names the revision that it arrived in; the frozen list of a revision is
every sound instance of its series that arrived in it or in an earlier one.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """An aware UTC time, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database. A naive time is a mistake of the caller and raises TypeError."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else _EPOCH + timedelta(microseconds=int(value))


metadata = MetaData()

# SQLite counts rowids only for a column of the type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

associations = Table(
    "associations",
    metadata,
    Column("id", String, primary_key=True),
    Column("calling_ae", String, nullable=False),
    Column("called_ae", String, nullable=False),
    Column("host", String, nullable=False),
    Column("receiver", String, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("closed_at", Instant),
    Index("associations_open", "receiver", "closed_at"),
    Index("associations_closed", "closed_at"),
)

series = Table(
    "series",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("series_instance_uid", String, nullable=False),
    Column("study_instance_uid", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("calling_ae", String, nullable=False),
    Column("called_ae", String, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("last_instance_at", Instant, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("own_result", Boolean, nullable=False),
    Column("accession_number", String, nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("series_instance_uid", "revision"),
    Index("series_state", "state"),
    Index("series_study", "study_instance_uid"),
    Index("series_accession", "accession_number"),
)

# Which associations carried a revision; completion waits for their release.
carriers = Table(
    "carriers",
    metadata,
    Column("series_id", _Id, ForeignKey("series.id"), primary_key=True),
    Column("association", String, primary_key=True),
)

instances = Table(
    "instances",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("series_id", _Id, ForeignKey("series.id")),  # null for a defect: it joins no revision
    Column("sop_instance_uid", String, nullable=False),
    Column("sop_class_uid", String, nullable=False),
    Column("series_instance_uid", String, nullable=False),
    Column("study_instance_uid", String, nullable=False),
    Column("transfer_syntax_uid", String, nullable=False),
    Column("path", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),
    Column("calling_ae", String, nullable=False),
    Column("called_ae", String, nullable=False),
    Column("association", String, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("own_result", Boolean, nullable=False),
    Column("defect", Text, nullable=False),
    Column("purged_at", Instant),  # when retention removed its file from the spool
    UniqueConstraint("sop_instance_uid", "sha256"),
    Index("instances_sender", "calling_ae"),
    Index("instances_series", "series_instance_uid"),
    Index("instances_path", "path"),
    Index(
        "instances_defects",
        "study_instance_uid",
        sqlite_where=text("defect <> ''"),
        postgresql_where=text("defect <> ''"),
    ),
    # Two sound instances of one UID in a series would put a slice into it twice.
    Index(
        "instances_sound",
        "series_instance_uid",
        "sop_instance_uid",
        unique=True,
        sqlite_where=text("defect = ''"),
        postgresql_where=text("defect = ''"),
    ),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("series_id", _Id, ForeignKey("series.id"), nullable=False),
    Column("pipeline", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("send_to", JSON, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease_until", Instant),
    Column("created_at", Instant, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("spec", Text, nullable=False),  # the JobSpec as JSON
    Column("submitted_at", Instant),  # when the broker last took it
    Column("submissions", Integer, nullable=False, default=0),  # since it last became QUEUED
    Column("begun_at", Instant),  # when its last attempt was seen to run
    Column("heartbeat", BigInteger, nullable=False, default=0),  # ns, mtime of the last one seen
    Column("priority", Integer, nullable=False, default=1, server_default="1"),  # node.job.Priority
    Column("not_before", Instant),  # the backoff of a job that is tried again
    Column("retires", JSON(none_as_null=True)),  # ids of the jobs whose results a rejection note is to retire
    Column("retired_at", Instant),
    Index("jobs_state", "state"),
    Index("jobs_series", "series_id"),
    Index("jobs_begun", "begun_at", "submitted_at"),
    Index(
        "jobs_retiring",
        "state",
        sqlite_where=text("retires IS NOT NULL AND retired_at IS NULL"),
        postgresql_where=text("retires IS NOT NULL AND retired_at IS NULL"),
    ),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("sop_instance_uid", String, nullable=False),
    Column("sop_class_uid", String, nullable=False),
    Column("series_instance_uid", String, nullable=False),
    Column("transfer_syntax_uid", String, nullable=False),
    Column("role", String, nullable=False),
    Column("path", String, nullable=False),
    UniqueConstraint("job_id", "sop_instance_uid"),
    Index("artifacts_sop", "sop_instance_uid"),
    Index("artifacts_series", "series_instance_uid"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("artifact_id", _Id, ForeignKey("artifacts.id"), nullable=False),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("peer", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", Instant, nullable=False),
    Column("status", Integer),
    Column("reason", Text, nullable=False, default=""),
    Column("created_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Column("priority", Integer, nullable=False, default=1, server_default="1"),
    Column("proofs", Integer, nullable=False, default=0, server_default="0"),  # asked since it was SENT
    Column("losses", Integer, nullable=False, default=0, server_default="0"),  # proofs that failed
    UniqueConstraint("artifact_id", "peer"),
    Index("deliveries_due", "peer", "state", "next_attempt_at"),
    Index("deliveries_state", "state"),
    Index("deliveries_job", "job_id"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("series_instance_uid", String, nullable=False),  # of the source series, for every entity
    Column("entity", String, nullable=False),
    Column("key", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Index("timeline_series", "series_instance_uid"),
)

# Who does what only one may do; a higher token fences off whoever held a lower one.
leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),  # empty: released
    Column("token", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),  # counts up while the holder lives
)

breakers = Table(
    "breakers",
    metadata,
    Column("peer", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("since", Instant, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("probe_at", Instant),
    Column("reason", Text, nullable=False),
)

# Storage commitment: what was asked of whom under which transaction (PS3.4 J.3).
commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String, primary_key=True),
    Column("peer", String, nullable=False),
    Column("asked_at", Instant, nullable=False),
    Column("answered_at", Instant),
)
commitment_items = Table(
    "commitment_items",
    metadata,
    Column("transaction_uid", String, ForeignKey("commitments.transaction_uid"), primary_key=True),
    Column("delivery_id", _Id, ForeignKey("deliveries.id"), primary_key=True),
)
