"""The settings as types: what config.toml may say. `config_file` reads them from there.

`config.toml` at the top of the project explains each setting to an administrator.
"""

import re
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Literal, Self

import regex
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydicom.datadict import tag_for_keyword

from node.job import DEFAULT_OUTPUTS, Output

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
RULE_WORDS = frozenset({"calling_ae", "called_ae", "instances"})


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)", value.strip())
    if match is None:
        raise ValueError('allowed: a size such as "5 GiB" (B, KiB, MiB, GiB, TiB)')
    return int(float(match[1]) * _UNITS[match[2]])


def _ae_title(value: object) -> object:
    # PS3.5 6.2, AE: 1 to 16 characters, no backslash, no control characters, not only spaces.
    if isinstance(value, str) and re.fullmatch(r"(?! *$)[ -\[\]-~]{1,16}", value):
        return value.strip()
    raise ValueError("allowed: 1 to 16 printable ASCII characters without a backslash")


def _address(value: object) -> object:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if host and port.isdecimal() and int(port) < 65536:
            return value
    raise ValueError('allowed: "host:port", such as "10.0.0.5:104"')


Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
AETitle = Annotated[str, BeforeValidator(_ae_title)]
Address = Annotated[str, BeforeValidator(_address)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$")]
Seconds = Annotated[float, Field(gt=0)]


def host_port(address: str) -> tuple[str, int]:
    """Split "host:port"; brackets of an IPv6 host are taken off."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def redis_socket(data: Path) -> Path:
    """Unix socket of the embedded Redis; outside the data folder where its path would be too long (108)."""
    socket = data / "redis.sock"
    if len(str(socket)) < 100:
        return socket
    name = sha256(str(data).encode()).hexdigest()[:16]
    return Path(gettempdir()) / f"aenode-{name}" / "redis.sock"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TLS(_Section):
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


class Node(_Section):
    """Who we are and where the data lies."""

    ae_title: AETitle = "AENODE"
    bind: Address = "0.0.0.0:11112"
    data: Path = Path("data")
    tls: TLS | None = None


class Receive(_Section):
    """The C-STORE and C-ECHO provider."""

    accept_unknown_peers: bool = False
    max_associations: int = Field(64, ge=1, le=1000)
    max_pdu: int = Field(131072, ge=4096, le=1 << 24)
    min_free: Size = 5 * 2**30
    processes: int = Field(1, ge=1, le=32)
    acse_timeout_seconds: Seconds = 30
    idle_timeout_seconds: Seconds = 60
    dimse_timeout_seconds: Seconds = 300


class Completion(_Section):
    """When a series counts as whole."""

    quiet_seconds: Seconds = 5
    quiet_seconds_open: Seconds = 30
    ask_source: bool = True


class Broker(_Section):
    """Where Celery's messages go."""

    url: str = Field("embedded", pattern=r"^(embedded|rediss?://.+|redis\+socket://.+)$")


class IndexSettings(_Section):
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


class Workers(_Section):
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


class Deliver(_Section):
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


class Retention(_Section):
    """What may be removed from the disk, and when."""

    days: float = Field(30, ge=0)
    purge: tuple[Settled, ...] = ("proven",)


class Audit(_Section):
    """The audit record."""

    file: bool = True
    syslog: Address | None = None
    syslog_ca: Path | None = None
    patient: bool = False


class Web(_Section):
    """The dashboard."""

    bind: Address = "127.0.0.1:8080"


class Log(_Section):
    """What the processes print to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class PeerTLS(_Section):
    """How we speak TLS to a peer; the files are those of node.tls unless others are named."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    server_name: str | None = Field(None, min_length=1)
    check_name: bool = True

    @model_validator(mode="after")
    def _a_key_has_its_certificate(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs its certificate")
        return self


def _tls(value: object) -> object:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class Peer(_Section):
    """A remote Application Entity. Without an address or a DICOMweb URL it can only send to us."""

    name: Name
    ae_title: AETitle
    address: Address | None = None
    dicomweb: str | None = Field(None, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    token_file: Path | None = None
    token_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    tls: Annotated[PeerTLS | None, BeforeValidator(_tls)] = None
    prove: Literal["commitment", "find", "none"] = "none"
    find: bool = True
    associations: int = Field(1, ge=1, le=16)
    max_associations: int | None = Field(None, ge=1)
    quota: Size | None = None
    priority: Literal["stat", "routine"] = "routine"

    @property
    def reachable(self) -> bool:
        """Whether results can be sent to it."""
        return self.address is not None or self.dicomweb is not None

    @model_validator(mode="after")
    def _dicomweb_has_what_it_needs(self) -> Self:
        if self.token_file or self.token_env:
            if not (self.dicomweb or "").startswith("https://"):
                raise ValueError("a token is for dicomweb, and must not travel in the clear: https:// only")
            if self.token_file and self.token_env:
                raise ValueError("allowed: token_file or token_env, not both")
        if self.prove == "commitment" and self.dicomweb and self.address is None:
            raise ValueError('DICOMweb has no storage commitment; allowed: prove = "find" or "none"')
        return self


class Pipeline(_Section):
    """A model with its settings and its outputs."""

    name: Name
    model: str = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(DEFAULT_OUTPUTS, min_length=1)
    strength: float = Field(0.5, ge=0, le=1)
    limit_sigma: float = Field(3, gt=0, le=10)


Condition = str | int | float | list[str | int | float]


class Rule(_Section):
    """A predicate over a series; all its conditions must hold."""

    name: Name
    when: dict[str, Condition]
    pipelines: tuple[str, ...] = Field(min_length=1)
    send_to: tuple[str, ...] = Field(min_length=1)
    priority: Literal["stat", "routine"] | None = None
    late: Literal["reprocess", "ignore", "alert"] = "reprocess"
    retire_superseded: bool = False
    notice: bool = False

    @field_validator("when")
    @classmethod
    def _conditions_are_known(cls, when: dict[str, Condition]) -> dict[str, Condition]:
        for keyword, condition in when.items():
            if keyword not in RULE_WORDS and tag_for_keyword(keyword) is None:
                allowed = "a DICOM keyword such as Modality, or " + ", ".join(sorted(RULE_WORDS))
                raise ValueError(f"{keyword!r} is not known; allowed: {allowed}")
            for operand in condition if isinstance(condition, list) else [condition]:
                _check_operand(keyword, operand)
        return when


def _check_operand(keyword: str, operand: str | float) -> None:
    if not isinstance(operand, str):
        return
    if match := re.match(r"(<=|>=|<|>)\s*(.*)$", operand):
        try:
            float(match[2])
        except ValueError:
            raise ValueError(f'{keyword}: "{match[1]}" needs a number after it, such as "<= 2.5"') from None
    elif match := re.match(r"!?~\s*(.*)$", operand):
        try:
            regex.compile(match[1])
        except regex.error as error:
            raise ValueError(f"{keyword}: not a regular expression: {error}") from None


class Settings(_Section):
    """All of config.toml."""

    node: Node = Node()
    receive: Receive = Receive()
    completion: Completion = Completion()
    broker: Broker = Broker()
    index: IndexSettings = IndexSettings()
    workers: Workers = Workers()
    deliver: Deliver = Deliver()
    retention: Retention = Retention()
    audit: Audit = Audit()
    web: Web = Web()
    log: Log = Log()
    peers: tuple[Peer, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def broker_url(self) -> str:
        """Celery's broker URL; the embedded Redis listens on a Unix socket."""
        if self.broker.url == "embedded":
            return f"redis+socket://{redis_socket(self.node.data)}"
        return self.broker.url

    def peer(self, name: str) -> Peer | None:
        """The peer of that name."""
        return next((p for p in self.peers if p.name == name), None)

    def pipeline(self, name: str) -> Pipeline | None:
        """The pipeline of that name."""
        return next((p for p in self.pipelines if p.name == name), None)
