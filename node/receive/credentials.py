"""Whose request it is: the peer that a bearer token or a client certificate belongs to."""

import hmac
import logging
import os
from collections.abc import Iterable

from node.config import Peer
from node.dimse.tls import ClientCertificate

log = logging.getLogger("aenode.receive")


def peer_of(peers: Iterable[Peer], authorization: str, certificate: ClientCertificate | None) -> Peer | None:
    """The peer that a request is of; None where it shows nothing, or what no peer has.

    A peer with a token must bring it, one with a certificate must have shown it, one with both both.
    """
    scheme, _, shown = authorization.strip().partition(" ")
    token = shown.strip() if scheme.lower() == "bearer" else ""
    return next((peer for peer in peers if peer.may_stow and _is_of(peer, token, certificate)), None)


def _is_of(peer: Peer, token: str, certificate: ClientCertificate | None) -> bool:
    if peer.client_certificate and not (certificate and certificate.is_named(peer.client_certificate)):
        return False
    if not (peer.receive_token_file or peer.receive_token_env):
        return True
    expected = _token(peer)
    return bool(expected) and hmac.compare_digest(expected.encode(), token.encode())


def _token(peer: Peer) -> str:
    """Read for each request, so that a renewed token is taken up; empty where it cannot be read."""
    if peer.receive_token_env is not None:
        return os.environ.get(peer.receive_token_env, "").strip()
    assert peer.receive_token_file is not None
    try:
        return peer.receive_token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = type(error).__name__
        log.error("%s: receive_token_file cannot be read, it is not let in: %s", peer.name, why)  # noqa: TRY400
        return ""
