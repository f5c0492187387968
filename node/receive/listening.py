"""Where connections come in: node.bind in the clear, node.tls.bind over TLS, or node.bind over TLS alone."""

import logging
import select
import socket
import ssl
from dataclasses import dataclass

from node.config import TLS, Node, host_port
from node.dimse.pdu import Connection
from node.dimse.tls import SecureConnection, TLSFilesError, acceptor_context, files_of

log = logging.getLogger("aenode.receive")

_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class _Door:
    listener: socket.socket
    secure: bool

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])


class Listening:
    """The listening sockets of a receiving process; made, they are bound.

    Raises OSError where an address is taken, TLSFilesError where the TLS files cannot be used.
    """

    def __init__(self, node: Node, *, share_port: bool) -> None:
        self._tls = node.tls
        self._context: ssl.SSLContext | None = None
        self._stamps: list[tuple[int, int]] = []
        if node.tls is not None:
            self._context = acceptor_context(node.tls)
            self._stamps = _stamps(node.tls)
        self._doors = [_Door(_bound(node.bind, share_port), secure=bool(node.tls and not node.tls.bind))]
        if node.tls is not None and node.tls.bind is not None:
            try:
                self._doors.append(_Door(_bound(node.tls.bind, share_port), secure=True))
            except OSError:
                self.close()
                raise
        self._poll = select.poll()
        for door in self._doors:
            self._poll.register(door.listener, select.POLLIN)

    @property
    def port(self) -> int:
        """Of node.bind."""
        return self._doors[0].port

    @property
    def tls_port(self) -> int | None:
        """Where TLS is spoken."""
        return next((door.port for door in self._doors if door.secure), None)

    def __str__(self) -> str:
        return " and ".join(f"port {door.port}{' (TLS)' if door.secure else ''}" for door in self._doors)

    def accept(self, seconds: float) -> list[tuple[Connection, str]]:
        """Connections that came within so many seconds, each with its host. Raises OSError."""
        ready = {fd for fd, _ in self._poll.poll(seconds * 1000)}
        found: list[tuple[Connection, str]] = []
        for door in self._doors:
            if door.listener.fileno() not in ready:
                continue
            try:
                connection, address = door.listener.accept()
            except BlockingIOError:  # another process took it, or the peer left
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = SecureConnection(connection, self._context) if door.secure and self._context else None
            found.append((wrapped or connection, str(address[0])))
        return found

    def refresh(self) -> None:
        """Take changed certificate files up; those that cannot be used leave the old ones in force."""
        if self._tls is None or (stamps := _stamps(self._tls)) == self._stamps:
            return
        self._stamps = stamps
        try:
            self._context = acceptor_context(self._tls)
        except TLSFilesError as error:
            log.error("changed TLS files are refused, the old ones stay: %s", error)  # noqa: TRY400 - no trace
        else:
            log.info("changed TLS files are in force")

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


def _stamps(tls: TLS) -> list[tuple[int, int]]:
    found = []
    for file in files_of(tls):
        try:
            stat = file.stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((0, 0))
    return found
