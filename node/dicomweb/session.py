"""An HTTP session with a peer: its TLS settings, its bearer token, and errors as PeerError."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool

from node.config import Peer, PeerTLS
from node.dimse.tls import TLSFilesError, no_session, requestor_context
from node.errors import PeerError


@contextmanager
def session_with(peer: Peer) -> Iterator[requests.Session]:
    """A session for one thread. Inside and on opening, what fails on the way raises PeerError."""
    session = requests.Session()
    session.trust_env = False  # no proxy, password or authority that the settings do not name
    try:
        session.mount("https://", _SecureAdapter(requestor_context(peer.tls or PeerTLS()), peer.tls))
        if token := _token(peer):
            session.headers["Authorization"] = f"Bearer {token}"
        yield session
    except TLSFilesError as error:
        raise PeerError(f"{peer.name}: {error}") from error
    except requests.RequestException as error:
        raise _failure(peer, error) from error
    finally:
        session.close()


def base_url(peer: Peer) -> str:
    """The root of the peer's services, without a slash at the end. Raises PeerError."""
    if peer.dicomweb is None:
        raise PeerError(f"{peer.name}: has no DICOMweb address in the settings", permanent=True)
    return peer.dicomweb.rstrip("/")


def _token(peer: Peer) -> str:
    """Read for each session, so that a renewed token is taken up."""
    if peer.token_env is not None:
        token = os.environ.get(peer.token_env, "").strip()
        if not token:
            raise PeerError(f"{peer.name}: the environment has no token in {peer.token_env}")
        return _checked(peer, token)
    if peer.token_file is None:
        return ""
    try:
        return _checked(peer, peer.token_file.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        why = type(error).__name__
        raise PeerError(f"{peer.name}: the token in {peer.token_file} cannot be read: {why}") from error


def _checked(peer: Peer, token: str) -> str:
    if not token or not token.isprintable() or " " in token:
        raise PeerError(f"{peer.name}: its token is empty or has characters that no token has")
    return token


def _failure(peer: Peer, error: requests.RequestException) -> PeerError:
    """What went wrong, without the URL, which the settings have, and without what was sent."""
    answer = error.response
    if answer is not None:
        return PeerError(f"{peer.name}: {said_by(answer)}")
    if isinstance(error, requests.exceptions.SSLError):
        return PeerError(f"{peer.name}: {_tls_fault(error)} with {peer.dicomweb}")
    if isinstance(error, requests.Timeout):
        return PeerError(f"{peer.name}: no answer in time from {peer.dicomweb}")
    return PeerError(f"{peer.name}: no connection to {peer.dicomweb}: {type(error).__name__}")


def _tls_fault(error: BaseException) -> str:
    """What the TLS library said, which requests and urllib3 have wrapped several times."""
    if isinstance(error, ssl.SSLError):
        return no_session(error)
    inner = [getattr(error, "reason", None), *error.args]
    found = (_tls_fault(one) for one in inner if isinstance(one, BaseException))
    return next(found, "no TLS session could be begun")


def said_by(answer: requests.Response) -> str:
    """An HTTP status as a sentence."""
    if answer.status_code in (401, 403):
        return f"does not accept our token or certificate (HTTP {answer.status_code})"
    return f"answers HTTP {answer.status_code} {answer.reason}"


class _SecureAdapter(HTTPAdapter):
    """Connections with our context alone; requests would add the authorities that it brings along."""

    def __init__(self, context: ssl.SSLContext, tls: PeerTLS | None) -> None:
        self._options: dict[str, Any] = {"ssl_context": context}
        if tls is not None and not tls.check_name:
            self._options["assert_hostname"] = False
        if tls is not None and tls.server_name is not None:
            self._options["server_hostname"] = tls.server_name
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """As the base, with our options."""
        super().init_poolmanager(connections, maxsize, block, **options, **self._options)

    def cert_verify(self, conn: ConnectionPool, url: str, verify: object, cert: object) -> None:
        """Nothing: the context verifies."""
