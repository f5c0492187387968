"""Whose request it is: the peer that a bearer token or a client certificate belongs to."""

import hmac
import logging
import os
from collections.abc import Iterable

from node.config import Peer
from node.dimse.tls import ClientCertificate
from node.errors import AenodeError

log = logging.getLogger("aenode.receive")


class TokenError(AenodeError):
    """A token of the settings cannot be read."""


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
    try:
        expected = expected_token(peer)
    except TokenError as error:
        log.error("%s is not let in: %s", peer.name, error)  # noqa: TRY400 - no trace
        return False
    return hmac.compare_digest(expected.encode(), token.encode())


def expected_token(peer: Peer) -> str:
    """A peer's token, read for each request so that a renewed one is taken up. Raises TokenError."""
    if peer.receive_token_env is not None:
        where, token = peer.receive_token_env, os.environ.get(peer.receive_token_env, "")
    else:
        assert peer.receive_token_file is not None
        where = str(peer.receive_token_file)
        try:
            token = peer.receive_token_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"the token in {where} cannot be read: {type(error).__name__}") from error
    if not token.strip() or len(token.split()) != 1:
        raise TokenError(f"there is no token in {where}")
    return token.strip()
