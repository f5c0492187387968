"""Associations that we ask for: opened with bounded waits, explained when refused, released at the end."""

import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from socket import IPPROTO_TCP, SO_SNDTIMEO, SOL_SOCKET, TCP_NODELAY, socket

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context
from pynetdicom.transport import AddressInformation, AssociationSocket

from node.config import Peer, host_port
from node.dimse.tls import TLSFilesError, requestor_context
from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import PeerError

# What is asked for and answered may name patients; it stays out of pynetdicom's own log.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False


class NothingAccepted(PeerError):
    """The peer accepted the association but none of its presentation contexts."""


@contextmanager
def associated(
    peer: Peer,
    own_ae: str,
    contexts: Sequence[tuple[UID, UID]],
    timeout: float,
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Iterator[Association]:
    """An established association, released at the end.

    `contexts` are pairs of abstract and transfer syntax, at most 128; `timeout` is in seconds
    and bounds connecting, negotiating, sending and each answer. Raises PeerError; permanent after a
    permanent rejection (PS3.8 9.3.4), NothingAccepted where no context was accepted.
    """
    if peer.address is None:
        raise PeerError(f"{peer.name}: has no address in the settings", permanent=True)
    ae = _Requestor(own_ae, timeout)
    host, port = host_port(peer.address)
    connected: list[bool] = []
    try:
        assoc = ae.associate(
            host,
            port,
            contexts=[build_context(*pair) for pair in contexts],
            ae_title=peer.ae_title,
            tls_args=_tls_args(peer, host),
            evt_handlers=[(evt.EVT_CONN_OPEN, lambda _: connected.append(True)), *handlers],
        )
    except OSError as error:  # the host's name cannot be resolved
        raise PeerError(f"{peer.name}: {peer.address} cannot be found: {error.strerror}") from error
    if not assoc.is_established:
        why = _why_not(assoc, peer, bool(connected), timeout)
        ae.close_socket()
        raise why
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _tls_args(peer: Peer, host: str) -> tuple[ssl.SSLContext, str] | None:
    if peer.tls is None:
        return None
    try:
        return requestor_context(peer.tls), peer.tls.server_name or host
    except TLSFilesError as error:
        raise PeerError(f"{peer.name}: {error}") from error


class _Requestor(AE):
    """An AE for one association, whose socket sends at once and never for longer than `timeout` seconds."""

    def __init__(self, ae_title: str, timeout: float) -> None:
        super().__init__(ae_title=ae_title)
        self.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.acse_timeout = self.dimse_timeout = self.network_timeout = self.connection_timeout = timeout
        self._timeout = timeout
        self._made: socket | None = None

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        transport = super()._create_socket(assoc, address, None)
        if tls_args is not None and transport.socket is not None:
            # Wrapped here, not in pynetdicom, which leaves a session open that fails while it begins.
            context, name = tls_args
            transport.socket = context.wrap_socket(transport.socket, server_hostname=name)
        self._made = transport.socket
        if self._made is not None:
            self._made.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            # pynetdicom sends without a limit; a peer that stops reading would hold its thread for good.
            seconds = int(self._timeout)
            limit = struct.pack("@ll", seconds, int((self._timeout - seconds) * 1e6))
            self._made.setsockopt(SOL_SOCKET, SO_SNDTIMEO, limit)
        return transport

    def close_socket(self) -> None:
        """Close what pynetdicom leaves open where a connection was not made."""
        if self._made is not None:
            self._made.close()


def _answer(assoc: Association) -> A_ASSOCIATE | None:
    """The peer's answer to the request. pynetdicom overlooks a rejection if its connection closes at once."""
    if assoc.acceptor.primitive is None:
        unread = assoc.dul.receive_pdu()
        return unread if isinstance(unread, A_ASSOCIATE) else None
    return assoc.acceptor.primitive


def _why_not(assoc: Association, peer: Peer, connected: bool, timeout: float) -> PeerError:
    answer = _answer(assoc)
    if answer is not None and answer.result:
        why = f"{answer.result_str}, {answer.source_str}: {answer.reason_str}"
        return PeerError(f"{peer.name}: association rejected: {why}", permanent=answer.result == 1)
    if answer is not None:
        message = f"{peer.name}: accepts none of the presentation contexts"
        return NothingAccepted(message, permanent=True)
    if not connected:
        what = "or no TLS session could be begun" if peer.tls else "refused or not answered"
        return PeerError(f"{peer.name}: no connection to {peer.address}: {what}")
    hint = "; it may not trust our certificate" if peer.tls else ""
    message = f"{peer.name}: the association request was aborted or not answered in {timeout:g} s{hint}"
    return PeerError(message)
