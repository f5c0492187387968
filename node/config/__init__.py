"""The settings as types: what config.toml may say. `config_file` reads them from there.

`config.toml` at the top of the project explains each setting to an administrator.
"""

from node.config.peers import Peer, PeerTLS, TransferSyntax
from node.config.rules import RULE_WORDS, Condition, Pipeline, Rule
from node.config.sections import (
    TLS,
    Audit,
    Broker,
    Completion,
    Deliver,
    DICOMweb,
    IndexSettings,
    Log,
    Node,
    Receive,
    Retention,
    Web,
    WebTLS,
    Workers,
)
from node.config.values import Section, host_port, is_loopback, redis_socket

__all__ = [
    "RULE_WORDS",
    "TLS",
    "Audit",
    "Broker",
    "Completion",
    "Condition",
    "DICOMweb",
    "Deliver",
    "IndexSettings",
    "Log",
    "Node",
    "Peer",
    "PeerTLS",
    "Pipeline",
    "Receive",
    "Retention",
    "Rule",
    "Settings",
    "TransferSyntax",
    "Web",
    "WebTLS",
    "Workers",
    "host_port",
    "is_loopback",
    "redis_socket",
]


class Settings(Section):
    """All of config.toml."""

    node: Node = Node()
    receive: Receive = Receive()
    dicomweb: DICOMweb = DICOMweb()
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
