"""Where connections come in.

DICOM: node.bind in the clear, node.tls.bind over TLS, or node.bind over TLS alone. HTTP: dicomweb.bind.
"""

import logging
import select
import socket
from dataclasses import dataclass

from node.config import TLS, DICOMweb, Node, host_port
from node.dimse.pdu import Connection
from node.dimse.tls import SecureConnection, TLSFilesError, acceptor_context, files_of

log = logging.getLogger("aenode.receive")

_BACKLOG = 128


class _Door:
    """One listening socket; with TLS its context, made anew when a file changes."""

    def __init__(self, address: str, tls: TLS | None, *, is_web: bool, share_port: bool) -> None:
        self.is_web = is_web
        self.tls = tls
        self.context = acceptor_context(tls) if tls is not None else None
        self._stamps = _stamps(tls)
        self.listener = _bound(address, share_port)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def refresh(self) -> None:
        if self.tls is None or (stamps := _stamps(self.tls)) == self._stamps:
            return
        self._stamps = stamps
        try:
            self.context = acceptor_context(self.tls)
        except TLSFilesError as error:
            log.error("changed TLS files are refused, the old ones stay: %s", error)  # noqa: TRY400 - no trace
        else:
            log.info("changed TLS files are in force on port %d", self.port)

    def __str__(self) -> str:
        kind = ("HTTPS" if self.tls else "HTTP") if self.is_web else "TLS" if self.tls else ""
        return f"port {self.port} ({kind})" if kind else f"port {self.port}"


@dataclass(frozen=True, slots=True)
class Arrived:
    """A connection that was accepted."""

    connection: Connection
    host: str
    is_web: bool


class Listening:
    """The listening sockets of a receiving process; made, they are bound.

    Raises OSError where an address is taken, TLSFilesError where the TLS files cannot be used.
    """

    def __init__(self, node: Node, web: DICOMweb, *, share_port: bool) -> None:
        tls = node.tls
        wanted = [(node.bind, tls if tls and not tls.bind else None, False)]
        if tls is not None and tls.bind is not None:
            wanted.append((tls.bind, tls, False))
        if web.bind is not None:
            wanted.append((web.bind, web.acceptor, True))
        self._doors: list[_Door] = []
        self._poll = select.poll()
        try:
            for address, files, is_web in wanted:
                self._doors.append(_Door(address, files, is_web=is_web, share_port=share_port))
        except (OSError, TLSFilesError):
            self.close()
            raise
        for door in self._doors:
            self._poll.register(door.listener, select.POLLIN)

    @property
    def port(self) -> int:
        """Of node.bind."""
        return self._doors[0].port

    @property
    def tls_port(self) -> int | None:
        """Where DICOM TLS is spoken."""
        return next((door.port for door in self._doors if door.tls and not door.is_web), None)

    @property
    def web_port(self) -> int | None:
        """Of dicomweb.bind."""
        return next((door.port for door in self._doors if door.is_web), None)

    def __str__(self) -> str:
        return " and ".join(map(str, self._doors))

    def accept(self, seconds: float) -> list[Arrived]:
        """Connections that came within so many seconds. Raises OSError."""
        ready = {fd for fd, _ in self._poll.poll(seconds * 1000)}
        found: list[Arrived] = []
        for door in self._doors:
            if door.listener.fileno() not in ready:
                continue
            try:
                connection, address = door.listener.accept()
            except BlockingIOError:  # another process took it, or the peer left
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = SecureConnection(connection, door.context) if door.context else None
            found.append(Arrived(secure or connection, str(address[0]), door.is_web))
        return found

    def refresh(self) -> None:
        """Take changed certificate files up; those that cannot be used leave the old ones in force."""
        for door in self._doors:
            door.refresh()

    def close(self) -> None:
        """Take no more connections."""
        for door in self._doors:
            door.listener.close()


def _bound(address: str, share_port: bool) -> socket.socket:
    host, port = host_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=share_port)
    listener.setblocking(False)
    return listener


def _stamps(tls: TLS | None) -> list[tuple[int, int]]:
    found = []
    for file in files_of(tls) if tls is not None else ():
        try:
            stat = file.stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((0, 0))
    return found
