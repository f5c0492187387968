"""An association as acceptor: one blocking loop on one thread, from its request to its end.

    connection → A-ASSOCIATE-RQ → judged and negotiated → messages, one at a time → release or abort

The bytes of a data set go to the storage as they come, so memory stays bounded by one PDU. What
an association may ask for stands in `message.py`. The connection may be a socket wrapped for TLS.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socket import SHUT_RD

from node.dimse import command, contexts, message, negotiation, pdu
from node.dimse.command import Command
from node.dimse.message import Message, Storage
from node.dimse.negotiation import Context, Titles
from node.dimse.pdu import Connection, ConnectionClosed, PDUReader, PDUType, ProtocolViolation
from node.dimse.status import AbortReason, AbortSource, Rejection, Status

log = logging.getLogger("aenode.receive")

_FAREWELL_SECONDS = 2.0  # the peer has so long to close the connection after the last PDU (ARTIM)


@dataclass(frozen=True, slots=True)
class Terms:
    """What an acceptor agrees to, and its patience. `judge` looks at the titles of each request."""

    judge: Callable[[Titles], Rejection | None]
    max_pdu: int
    acse_seconds: float
    idle_seconds: float
    message_seconds: float  # from the first fragment of a message to its last


class Association:
    """One association that a peer opened. `run` serves it to its end and never raises."""

    def __init__(
        self,
        connection: Connection,
        id: str,
        host: str,
        terms: Terms,
        opened: Callable[["Association"], Storage],
    ) -> None:
        self.id = id
        self.host = host
        self.titles = Titles("", "", version_1=True)
        self.stored = self.refused = 0
        self.busy = False  # a message is under way
        self.idle_since = time.monotonic()
        self.stopping = False
        self._connection = connection
        self._terms = terms
        self._opened = opened
        self._reader = PDUReader(connection, terms.max_pdu)
        self._contexts: dict[int, Context] = {}
        self._peer_max_pdu = 0

    def run(self) -> None:
        """Negotiate, answer messages, and close the connection, whatever happens."""
        try:
            self._connection.settimeout(self._terms.acse_seconds)
            storage = self._negotiate()
            if storage is not None:
                self._connection.settimeout(self._terms.idle_seconds)
                self._serve(storage)
        except ProtocolViolation as error:
            self._abort(AbortSource.PROVIDER, error.reason, str(error))
        except ConnectionClosed as error:
            if self.stopping:
                self._abort(AbortSource.USER, AbortReason.NOT_SPECIFIED, "this node is stopping")
            else:
                # A connection that asked for nothing is a port scan or a health check.
                level = logging.WARNING if self.titles.calling_ae else logging.DEBUG
                log.log(level, "%s ended without release: %s", self, error)
        except TimeoutError:
            self._abort(AbortSource.PROVIDER, AbortReason.NOT_SPECIFIED, "the peer was silent for too long")
        except OSError as error:
            log.warning("%s ended without release: %s", self, error)
        except Exception:
            log.exception("%s: failed", self)
            with suppress(OSError):
                self._connection.sendall(pdu.abort(AbortSource.USER, AbortReason.NOT_SPECIFIED))
        finally:
            self._connection.close()

    def end(self) -> None:
        """Called from another thread: abort as soon as no message is under way, at once where none is."""
        self.stopping = True
        if not self.busy:
            with suppress(OSError):
                self._connection.shutdown(SHUT_RD)

    def __str__(self) -> str:
        who = self.titles.calling_ae or "an unnamed peer"
        return f"association {self.id[:8]} of {who} at {self.host}"

    def _negotiate(self) -> Storage | None:
        kind, body = self._reader.read(self._terms.acse_seconds)
        if kind == PDUType.ABORT:
            return None
        if kind != PDUType.ASSOCIATE_RQ:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PDU, f"PDU of type {kind} before an association")
        self.titles = negotiation.titles(body)
        result = self._terms.judge(self.titles) or negotiation.negotiate(
            body, self.titles, contexts.acceptable(), self._terms.max_pdu
        )
        if isinstance(result, Rejection):
            log.warning("%s, calling %s, rejected: %s", self, self.titles.called_ae, result.sentence)
            self._connection.sendall(pdu.rejection(result))
            self._await_close()
            return None
        self._contexts, self._peer_max_pdu = result.contexts, result.peer_max_pdu
        storage = self._opened(self)
        log.info(
            "%s (%s) accepted, %d presentation contexts, %d refused",
            self,
            result.peer_implementation,
            len(result.contexts),
            result.refused,
        )
        self._connection.sendall(result.answer)
        return storage

    def _serve(self, storage: Storage) -> None:
        incoming = Message(storage, self.answer)
        begun_at = 0.0
        try:
            while True:
                kind, body = self._reader.read(self._terms.idle_seconds)
                if kind == PDUType.P_DATA:
                    now = time.monotonic()
                    if not incoming.under_way:
                        begun_at = now
                    elif now - begun_at > self._terms.message_seconds:
                        raise TimeoutError("a message was not whole in time")
                    for context_id, control, fragment in message.pdvs(body):
                        incoming.add(self._context(context_id), control, fragment)
                    self.busy, self.idle_since = incoming.under_way, time.monotonic()
                    if self.stopping and not self.busy:
                        raise ConnectionClosed("this node is stopping")
                elif kind == PDUType.RELEASE_RQ:
                    log.info("%s released: %d stored, %d refused", self, self.stored, self.refused)
                    self._connection.sendall(pdu.release_response())
                    self._await_close()
                    return
                elif kind == PDUType.ABORT:
                    log.warning("%s aborted by the peer: %d stored", self, self.stored)
                    return
                else:
                    sentence = f"PDU of type {kind} within an association"
                    raise ProtocolViolation(AbortReason.UNEXPECTED_PDU, sentence)
        finally:
            self.busy = False
            if incoming.discard():
                log.warning("%s: an instance was not finished and is discarded", self)

    def _context(self, context_id: int) -> Context:
        try:
            return self._contexts[context_id]
        except KeyError:
            sentence = f"presentation context {context_id}, which was not accepted"
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, sentence) from None

    def answer(self, context: Context, request: Command, status: Status, comment: str) -> None:
        """Send a response without a data set; C-CANCEL has none."""
        if request.field == command.C_STORE_RQ:
            if status == Status.SUCCESS:
                self.stored += 1
            else:
                self.refused += 1
                uid = request.sop_instance_uid[:64]
                log.warning("%s: %s refused with 0x%04X: %s", self, uid, status, comment)
        elif request.field == command.C_CANCEL_RQ:
            return
        encoded = command.response(request, status, comment)
        self._connection.sendall(pdu.p_data(context.id, encoded, self._peer_max_pdu))

    def _abort(self, source: AbortSource, reason: AbortReason, why: str) -> None:
        log.warning("%s aborted: %s", self, why)
        with suppress(OSError):
            self._connection.sendall(pdu.abort(source, reason))
            self._await_close()

    def _await_close(self) -> None:
        """Let the peer close first, so that no reset overtakes what was sent last (PS3.8 9.1.4).

        In bounded time: a peer that goes on dripping bytes is not waited for.
        """
        until = time.monotonic() + _FAREWELL_SECONDS
        left = memoryview(bytearray(4096))
        with suppress(OSError):
            while (remaining := until - time.monotonic()) > 0:
                self._connection.settimeout(remaining)
                if self._connection.recv_into(left) == 0:
                    break
