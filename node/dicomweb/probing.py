"""What can be asked of a DICOMweb peer without storing something there."""

import time
from contextlib import suppress
from typing import Protocol

from node.config import Peer
from node.dicomweb import qido, stow
from node.dimse.probing import Findings, takes_commitment
from node.errors import PeerError

# What no question without an instance can tell.
UNKNOWN = "which SOP classes and transfer syntaxes it keeps, and how much, is only seen by storing"


def probe(peer: Peer, own_ae: str, *, timeout: float = 10) -> Findings:
    """Ask by STOW-RS and QIDO-RS, and its address for storage commitment; `timeout` is in seconds.

    Failures are findings, not errors; `error` is set where neither service answers.
    """
    found = Findings(peer.name)
    taken, found.store_error = _asked(stow.answers, peer, timeout)
    found.store = taken is not None
    if peer.find:
        found.echo_seconds, found.find_error = _asked(qido.answers, peer, timeout)
        found.find = found.echo_seconds is not None
    else:
        found.echo_seconds, found.find_error = taken, "not asked: find = false"
    if not found.store and not found.find:
        errors = dict.fromkeys([found.store_error, *([found.find_error] if peer.find else [])])
        found.error = "; ".join(errors)
    elif peer.address is not None:
        with suppress(PeerError):
            found.commitment = takes_commitment(peer, own_ae, timeout)
    return found


class _Question(Protocol):
    def __call__(self, peer: Peer, *, timeout: float) -> None: ...


def _asked(question: _Question, peer: Peer, timeout: float) -> tuple[float | None, str]:
    """Seconds until the answer, or why there is none."""
    begun = time.monotonic()
    try:
        question(peer, timeout=timeout)
    except PeerError as error:
        return None, str(error)
    return time.monotonic() - begun, ""
