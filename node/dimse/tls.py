"""DICOM TLS (PS3.15 B): the contexts of acceptor and requestor, and a session as a connection.

TLS 1.2 with ECDHE and AES-GCM, or 1.3, no compression and no renegotiation: what BCP 195 (RFC 9325)
recommends and the BCP 195 profiles of PS3.15 B ask for, the extended one included.
"""

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from node.config import TLS, PeerTLS
from node.errors import AenodeError

MINIMUM = ssl.TLSVersion.TLSv1_2
CIPHERS = "ECDHE+AESGCM"  # of TLS 1.2; TLS 1.3 has no weaker ones


class TLSFilesError(AenodeError):
    """A certificate, key or authority cannot be used. The message names the file."""


def acceptor_context(tls: TLS) -> ssl.SSLContext:
    """For connections that come in. Raises TLSFilesError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls.certificate, tls.key)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.ca is not None:
        _trust(context, tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    return context


def requestor_context(tls: PeerTLS) -> ssl.SSLContext:
    """For connections that we open; the peer's certificate is always verified. Raises TLSFilesError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls.certificate, tls.key)
    context.check_hostname = tls.check_name
    if tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, tls.ca)
    return context


def _context(protocol: int, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = MINIMUM
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if certificate is not None:
        for file in (certificate, key or certificate):
            _readable(file)
        try:
            # Without a password given, a key that needs one would ask for it on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, OSError) as error:
            pair = f"{certificate} and {key}" if key else f"{certificate}"
            what = "no certificate with its unencrypted key, in PEM"
            raise TLSFilesError(f"{pair}: {what} ({_reason(error)})") from error
    return context


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    _readable(ca)
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise TLSFilesError(f"{ca}: no certificates of authorities, in PEM ({_reason(error)})") from error


def _readable(file: Path) -> None:
    try:
        file.read_bytes()
    except OSError as error:
        raise TLSFilesError(f"{file} cannot be read: {error.strerror}") from error


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error).lower().replace("_", " ")


def files_of(tls: TLS) -> Sequence[Path]:
    """The files that an acceptor's context is made of."""
    return [file for file in (tls.certificate, tls.key, tls.ca) if file is not None]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a peer has shown: the SHA-256 of its certificate, and the names that stand in it."""

    sha256: str
    names: frozenset[str]

    def is_named(self, wanted: str) -> bool:
        """Whether it is the one that a peer's `client_certificate` asks for."""
        kind, colon, digest = wanted.partition(":")
        return digest == self.sha256 if colon and kind == "sha256" else wanted in self.names


def _names(said: Mapping[str, Any]) -> frozenset[str]:
    """Common name and SubjectAltNames, from what `getpeercert` says."""
    subject = [pair for pairs in said.get("subject", ()) for pair in pairs]
    common = [value for kind, value in subject if kind == "commonName"]
    return frozenset(common + [str(value) for _, value in said.get("subjectAltName", ())])


class SecureConnection:
    """A TLS session that a peer begins, as a connection of the upper layer.

    The session is begun by the first read, so in the association's own thread and within its
    patience. After `shutdown`, which only ends a read that waits, what is written still goes out in TLS.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        connection.setblocking(False)
        self._tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._seconds: float | None = None
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()  # a descriptor that was closed may be another file's by now
        self._closed = False

    def settimeout(self, value: float | None, /) -> None:
        """Seconds that a read or a write may take."""
        self._seconds = value

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what is there; 0 at the end of the stream, or once after `shutdown`."""
        deadline = self._deadline()
        while True:
            try:
                return self._tls.recv_into(buffer)
            except ssl.SSLWantReadError:
                woken = self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                woken = self._wait(select.POLLOUT, deadline)
            except ssl.SSLError as error:
                raise OSError(no_session(error)) from error
            if woken:
                return 0

    def sendall(self, data: bytes, /) -> None:
        """Write all of the data."""
        deadline = self._deadline()
        left = memoryview(data)
        while left:
            try:
                left = left[self._tls.send(left) :]
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)

    def certificate(self) -> ClientCertificate | None:
        """What the peer has shown, verified, once the session has begun; None where it showed nothing."""
        try:
            encoded, said = self._tls.getpeercert(binary_form=True), self._tls.getpeercert()
        except ValueError:  # no session yet
            return None
        if not encoded or not said:
            return None
        return ClientCertificate(sha256(encoded).hexdigest(), _names(said))

    def shutdown(self, _how: int, /) -> None:
        """Called from another thread: a read that waits returns 0."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._waker, 1)

    def close(self) -> None:
        """Tell the peer that the session ends, and close the connection."""
        with suppress(OSError, ValueError):
            self._tls.unwrap()
        self._tls.close()
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._waker)

    def _deadline(self) -> float | None:
        return None if self._seconds is None else time.monotonic() + self._seconds

    def _wait(self, event: int, deadline: float | None) -> bool:
        """Wait until the socket is ready; True where `shutdown` came first. Raises TimeoutError."""
        poll = select.poll()
        poll.register(self._tls, event)
        if event == select.POLLIN:
            poll.register(self._waker, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = poll.poll(left)
        if not ready:
            raise TimeoutError("the peer was silent for too long")
        if any(fd == self._waker for fd, _ in ready):
            os.eventfd_read(self._waker)
            return True
        return False


_SENTENCES = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no client certificate",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted",
    "NO_SHARED_CIPHER": "it knows no cipher suite that is allowed",
    "UNSUPPORTED_PROTOCOL": "it speaks an old version of TLS",
}


def no_session(error: ssl.SSLError) -> str:
    """Why no session came about, as a sentence."""
    reason = error.reason or "unknown"
    detail = str(getattr(error, "verify_message", "") or reason.lower().replace("_", " "))
    sentence = _SENTENCES.get(reason)
    return f"no TLS session: {sentence} ({detail})" if sentence else f"the TLS session failed ({detail})"
