"""HTTP/1.1 as a server: one blocking loop on one thread a connection, from its first request to its end.

The protocol is h11's; bytes, patience and the stop are ours, as for an association. A body goes to the
service as it comes, so memory stays bounded by one read whatever the request's length.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from socket import SHUT_RD, SHUT_WR

import h11

from node.dimse.pdu import Connection
from node.dimse.tls import ClientCertificate, SecureConnection
from node.errors import AenodeError

log = logging.getLogger("aenode.receive")

_READ_BYTES = 256 << 10
_LONGEST_HEAD = 16 << 10  # bytes of a request line with its headers
_FAREWELL_SECONDS = 2.0  # the peer has so long to read an answer that comes before the end of its request


class RequestBroken(AenodeError):
    """The rest of a request will not come, or cannot be read. `status` is the answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


class _Gone(AenodeError):
    """The peer closed the connection between two requests, or we are stopping."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer may take, in seconds."""

    head: float  # for the head of a request
    idle: float  # between two reads, and between two requests
    message: float  # from one `renew` to the next


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its body."""

    status: HTTPStatus
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def plain(status: HTTPStatus, sentence: str, *headers: tuple[str, str]) -> Answer:
    """A sentence for a person."""
    return Answer(status, f"{sentence}\n".encode(), headers=headers)


class Exchange:
    """One request, while its answer is being made."""

    def __init__(self, connection: "WebConnection", request: h11.Request) -> None:
        self.host = connection.host
        self.certificate = connection.certificate()
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii", "replace")
        self._connection = connection
        self._headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers]

    def header(self, name: str) -> str:
        """The value of a header, named in lower case; empty where there is none."""
        return ", ".join(value for key, value in self._headers if key == name)

    def body(self) -> Iterator[bytearray | bytes]:
        """The body, piece by piece. Raises RequestBroken."""
        self.renew()
        yield from self._connection.body()

    def renew(self) -> None:
        """The peer has shown that it gets on: its patience begins anew."""
        self._connection.renew()


Service = Callable[[Exchange], Answer]


class WebConnection:
    """One connection that a peer opened. `run` serves it to its end and never raises."""

    def __init__(
        self, connection: Connection, id: str, host: str, patience: Patience, service: Service
    ) -> None:
        self.id = id
        self.host = host
        self.busy = False  # a request is under way
        self.idle_since = time.monotonic()
        self.stopping = False
        self._connection = connection
        self._patience = patience
        self._service = service
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)
        self._room = memoryview(bytearray(_READ_BYTES))
        self._due = time.monotonic() + patience.head
        self._is_head = False

    def run(self) -> None:
        """Answer requests, and close the connection, whatever happens."""
        try:
            while self._answer_one():
                self._http.start_next_cycle()
                self._due = time.monotonic() + self._patience.idle
        except (_Gone, TimeoutError) as ended:
            log.debug("%s: %s", self, ended)
        except OSError as error:
            log.warning("%s: %s", self, error)
        except Exception:
            log.exception("%s: failed", self)
        finally:
            self.busy = False
            self._connection.close()

    def end(self) -> None:
        """Called from another thread: close after the request under way, at once where there is none."""
        self.stopping = True
        if not self.busy:
            with suppress(OSError):
                self._connection.shutdown(SHUT_RD)

    def certificate(self) -> ClientCertificate | None:
        """What the peer has shown over TLS."""
        return self._connection.certificate() if isinstance(self._connection, SecureConnection) else None

    def __str__(self) -> str:
        return f"HTTP connection {self.id[:8]} from {self.host}"

    def _answer_one(self) -> bool:
        """Whether another request may follow."""
        try:
            request = self._head()
            self.busy = True
            self._is_head = request.method == b"HEAD"
            answer = self._service(Exchange(self, request))
        except RequestBroken as broken:
            log.warning("%s: %s", self, broken)
            answer = plain(broken.status, str(broken))
        except (_Gone, OSError):
            raise
        except Exception:
            log.exception("%s: a request failed", self)
            answer = plain(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected failure, see the log of this node")
        whole = self._http.their_state is h11.DONE
        # Whoever is not known does not keep its place.
        last = not whole or self.stopping or answer.status == HTTPStatus.UNAUTHORIZED
        self._send(answer, last)
        self.busy, self.idle_since = False, time.monotonic()
        if not whole:
            self._await_close()
        return not last and self._http.our_state is h11.DONE

    def _head(self) -> h11.Request:
        if not self._http.trailing_data[0]:
            self._read()
            self._due = time.monotonic() + self._patience.head
        while True:
            event = self._event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                raise _Gone("closed by the peer")
            self._read()

    def body(self) -> Iterator[bytearray | bytes]:
        """The body of the request under way. Raises RequestBroken."""
        while True:
            event = self._event()
            if isinstance(event, h11.Data):
                yield event.data
            elif isinstance(event, h11.EndOfMessage):
                return
            elif event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                try:
                    self._read()
                except TimeoutError as error:
                    raise RequestBroken(HTTPStatus.REQUEST_TIMEOUT, str(error)) from error
                except OSError as error:
                    raise RequestBroken(HTTPStatus.BAD_REQUEST, f"the connection broke: {error}") from error
            else:
                raise RequestBroken(HTTPStatus.BAD_REQUEST, "the request has no end")

    def renew(self) -> None:
        """The peer's patience for a message begins anew."""
        self._due = time.monotonic() + self._patience.message

    def _event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise RequestBroken(HTTPStatus(error.error_status_hint), f"not HTTP/1.1: {error}") from error

    def _read(self) -> None:
        left = self._due - time.monotonic()
        if left <= 0:
            raise TimeoutError("the peer took too long")
        self._connection.settimeout(min(left, self._patience.idle))
        count = self._connection.recv_into(self._room)
        if count == 0 and self._http.their_state is h11.IDLE and not self._http.trailing_data[0]:
            raise _Gone("this node is stopping" if self.stopping else "closed by the peer")
        self._http.receive_data(bytes(self._room[:count]))

    def _send(self, answer: Answer, last: bool) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("Content-Length", str(len(answer.body))), *answer.headers]
        if answer.body:
            headers += [("Content-Type", answer.kind), ("X-Content-Type-Options", "nosniff")]
        if last:
            headers.append(("Connection", "close"))
        self._connection.settimeout(self._patience.idle)
        self._write(
            h11.Response(status_code=answer.status, headers=headers, reason=answer.status.phrase.encode()),
            h11.Data(data=b"" if self._is_head else answer.body),
            h11.EndOfMessage(),
        )

    def _write(self, *events: h11.Event) -> None:
        self._connection.sendall(b"".join(self._http.send(event) or b"" for event in events))

    def _await_close(self) -> None:
        """Read on for a moment, so that no reset overtakes the answer; in bounded time."""
        until = time.monotonic() + _FAREWELL_SECONDS
        with suppress(OSError):
            if not isinstance(self._connection, SecureConnection):
                self._connection.shutdown(SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self._connection.settimeout(left)
                if self._connection.recv_into(self._room) == 0:
                    break
