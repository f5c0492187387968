"""The receiver: listens, and serves each association and each HTTP connection on its own thread."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from node.config_file import SettingsFile
from node.dimse.pdu import Connection
from node.dimse.tls import ClientCertificate, SecureConnection
from node.dimse.upper_layer import Association, Terms
from node.index import Index
from node.receive.http import Patience, WebConnection
from node.receive.listening import Arrived, Listening
from node.receive.reception import Reception
from node.receive.stowing import StowService

log = logging.getLogger("aenode.receive")

_LOOK_EVERY_SECONDS = 0.2  # for a stop
_REFRESH_EVERY_SECONDS = 1.0
_UNADMITTED = 32  # connections beside those admitted: yet to ask, being rejected, or between two requests
_QUIET_SECONDS = 2.0  # when stopping, a connection without a message for so long is ended
_LAST_SECONDS = 5.0  # when time is up, what is under way may take so long more


def _now() -> datetime:
    return datetime.now(UTC)


class _Served(Protocol):
    """An association or an HTTP connection while it is served."""

    busy: bool
    idle_since: float
    stopping: bool

    def run(self) -> None: ...

    def end(self) -> None: ...


class Server:
    """One receiving process. `run` serves until it is told to stop, and then finishes what runs.

    It binds when it is made, so that the ports are known and a taken address raises OSError at once.
    """

    def __init__(
        self,
        file: SettingsFile,
        index: Index,
        *,
        share_port: bool = False,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        settings = file.settings
        self._file = file
        self._reception = Reception(file, index, clock)
        self._stow = StowService(self._reception)
        self._running: dict[str, _Served] = {}
        self._listening = Listening(settings.node, settings.dicomweb, share_port=share_port)
        self.port, self.tls_port = self._listening.port, self._listening.tls_port
        self.web_port = self._listening.web_port

    def run(self, stop: threading.Event, tick: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set. `tick` is called about once a second."""
        with self._reception.running(stop):
            log.info("%s listens on %s", self._file.settings.node.ae_title, self._listening)
            try:
                self._accept(stop, tick)
            finally:
                self._reception.stopping = True
                self._listening.close()
                stop.set()  # for the sweep, should it still run after an error
                self._finish()

    def _accept(self, stop: threading.Event, tick: Callable[[], None]) -> None:
        look_at = 0.0
        while not stop.is_set():
            if (now := time.monotonic()) >= look_at:
                look_at = now + _REFRESH_EVERY_SECONDS
                self._refresh()
                tick()
            try:
                arrived = self._listening.accept(_LOOK_EVERY_SECONDS)
            except OSError as error:  # out of file descriptors, or the peer is gone already
                log.warning("a connection could not be accepted: %s", error)
                stop.wait(_LOOK_EVERY_SECONDS)
                continue
            for one in arrived:
                self._begin(one)

    def _refresh(self) -> None:
        self._listening.refresh()
        if self._file.refresh():
            if self._file.error is None:
                log.info("%s has changed and is in force", self._file.path)
            else:
                log.error("%s is refused, the old settings stay: %s", self._file.path, self._file.error)

    def _begin(self, arrived: Arrived) -> None:
        connection, host = arrived.connection, arrived.host
        if len(self._running) >= self._file.settings.receive.max_associations + _UNADMITTED:
            log.warning("a connection from %s is closed: too many that have not asked for anything", host)
            connection.close()
            return
        id = uuid.uuid4().hex
        served = (
            self._web(id, connection, host) if arrived.is_web else self._association(id, connection, host)
        )
        # A daemon, so that a thread that hangs cannot keep the process; what it holds is not acknowledged.
        self._running[id] = served
        threading.Thread(target=self._serve, args=(id, served), name=f"peer-{id[:8]}", daemon=True).start()

    def _association(self, id: str, connection: Connection, host: str) -> Association:
        def certificate() -> ClientCertificate | None:
            return connection.certificate() if isinstance(connection, SecureConnection) else None

        receive = self._file.settings.receive
        terms = Terms(
            judge=lambda titles: self._reception.judge(id, titles, certificate()),
            max_pdu=receive.max_pdu,
            acse_seconds=receive.acse_timeout_seconds,
            idle_seconds=receive.idle_timeout_seconds,
            message_seconds=receive.dimse_timeout_seconds,
        )
        return Association(connection, id, host, terms, self._reception.begin)

    def _web(self, id: str, connection: Connection, host: str) -> WebConnection:
        receive = self._file.settings.receive
        patience = Patience(
            head=receive.acse_timeout_seconds,
            idle=receive.idle_timeout_seconds,
            message=receive.dimse_timeout_seconds,
        )
        return WebConnection(connection, id, host, patience, self._stow)

    def _serve(self, id: str, served: _Served) -> None:
        try:
            served.run()
        finally:
            if isinstance(served, Association):
                self._reception.end(served)
            self._running.pop(id, None)

    def _finish(self) -> None:
        """Let associations end by themselves for a while, then between two messages.

        An HTTP connection has no release: it ends after the request under way.
        """
        for served in list(self._running.values()):
            if isinstance(served, WebConnection):
                served.end()
        until = time.monotonic() + 0.75 * self._file.settings.receive.idle_timeout_seconds
        while self._running and (now := time.monotonic()) < until + _LAST_SECONDS:
            for served in list(self._running.values()):
                quiet = not served.busy and now - served.idle_since > _QUIET_SECONDS
                if (quiet or now > until) and not served.stopping:
                    served.end()
            time.sleep(0.02)
        for served in list(self._running.values()):
            log.error("%s is cut off: it did not end in time", served)
