"""The sections of config.toml that concern one part of the node each."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from node.config.values import (
    Address,
    AETitle,
    Seconds,
    Section,
    Size,
    host_port,
    is_loopback,
    table_or_bool,
)


class TLS(Section):
    """DICOM TLS as acceptor (PS3.15 B); the certificate is also ours as a requestor."""

    certificate: Path
    key: Path | None = None
    ca: Path | None = None
    require_client_certificate: bool = True
    bind: Address | None = None

    @model_validator(mode="after")
    def _clients_need_an_authority(self) -> Self:
        if self.require_client_certificate and self.ca is None:
            raise ValueError("require_client_certificate needs ca: the authority that signs the peers'")
        return self


class Node(Section):
    """Who we are and where the data lies."""

    ae_title: AETitle = "AENODE"
    bind: Address = "0.0.0.0:11112"
    data: Path = Path("data")
    tls: TLS | None = None


class Receive(Section):
    """What associations and STOW-RS requests in may take up."""

    accept_unknown_peers: bool = False
    max_associations: int = Field(64, ge=1, le=1000)
    max_pdu: int = Field(131072, ge=4096, le=1 << 24)
    min_free: Size = 5 * 2**30
    processes: int = Field(1, ge=1, le=32)
    acse_timeout_seconds: Seconds = 30
    idle_timeout_seconds: Seconds = 60
    dimse_timeout_seconds: Seconds = 300


class WebTLS(Section):
    """HTTPS as acceptor; the files are those of node.tls unless others are named."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    require_client_certificate: bool = False

    @model_validator(mode="after")
    def _a_key_has_its_certificate(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs its certificate")
        return self


class DICOMweb(Section):
    """The STOW-RS provider; without `bind` there is none."""

    bind: Address | None = None
    tls: Annotated[WebTLS | None, BeforeValidator(table_or_bool)] = None
    max_instances: int = Field(10_000, ge=1)

    @property
    def acceptor(self) -> TLS | None:
        """How TLS is spoken, once the files of node.tls are filled in."""
        if self.tls is None or self.tls.certificate is None:
            return None
        return TLS.model_validate(self.tls.model_dump())

    @model_validator(mode="after")
    def _no_token_in_the_clear(self) -> Self:
        if self.bind is not None and self.tls is None and not is_loopback(host_port(self.bind)[0]):
            raise ValueError('beyond this machine tls is needed; allowed without: "127.0.0.1:…"')
        return self


class Completion(Section):
    """When a series counts as whole."""

    quiet_seconds: Seconds = 5
    quiet_seconds_open: Seconds = 30
    ask_source: bool = True


class Broker(Section):
    """Where Celery's messages go."""

    url: str = Field("embedded", pattern=r"^(embedded|rediss?://.+|redis\+socket://.+)$")


class IndexSettings(Section):
    """Where the index lies, and how many routers work on it."""

    url: str = Field("sqlite", pattern=r"^(sqlite|sqlite:///.+|postgresql\+psycopg://.+)$")
    routers: Literal["one", "several"] = "one"
    lease_seconds: Seconds = 15

    @field_validator("routers")
    @classmethod
    def _several_need_postgresql(cls, routers: str, info: ValidationInfo) -> str:
        if routers == "several" and str(info.data.get("url", "sqlite")).startswith("sqlite"):
            raise ValueError('"several" needs PostgreSQL (index.url); allowed with SQLite: "one"')
        return routers


class Workers(Section):
    """The Celery workers."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|openvino)$")
    precision: Literal["float32", "bfloat16"] = "float32"
    time_limit_seconds: int = Field(900, ge=5)
    processes: int = Field(1, ge=1, le=64)
    threads: int = Field(0, ge=0)
    attempts: int = Field(3, ge=1)
    retry_seconds: float = Field(5, ge=0)
    retry_max_seconds: float = Field(300, ge=0)
    lease_seconds: Seconds = 60
    lost_seconds: Seconds = 300


class Deliver(Section):
    """The outbox."""

    batch: int = Field(500, ge=1)
    timeout_seconds: Seconds = 30
    retry_seconds: Seconds = 5
    retry_max_seconds: Seconds = 3600
    attempts: int = Field(200, ge=1)
    breaker_failures: int = Field(3, ge=1)
    breaker_seconds: Seconds = 30
    breaker_max_seconds: Seconds = 300
    proof_seconds: Seconds = 30
    proof_max_seconds: Seconds = 3600
    proof_wait_seconds: float = Field(5, ge=0)
    proof_questions: int = Field(5, ge=1)
    losses: int = Field(3, ge=1)


Settled = Literal["proven", "sent", "ignored", "failed"]


class Retention(Section):
    """What may be removed from the disk, and when."""

    days: float = Field(30, ge=0)
    purge: tuple[Settled, ...] = ("proven",)


class Audit(Section):
    """The audit record."""

    file: bool = True
    syslog: Address | None = None
    syslog_ca: Path | None = None
    patient: bool = False


class Web(Section):
    """The dashboard."""

    bind: Address = "127.0.0.1:8080"


class Log(Section):
    """What the processes print to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
