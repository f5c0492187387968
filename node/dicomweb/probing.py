"""What can be asked of a DICOMweb peer without storing something there."""

import time

from node.config import Peer
from node.dicomweb import qido
from node.dimse.probing import Findings
from node.errors import PeerError


def probe(peer: Peer, *, timeout: float = 10) -> Findings:
    """Ask by QIDO-RS; `timeout` is in seconds. Failures are findings, not errors."""
    found = Findings(peer.name)
    begun = time.monotonic()
    try:
        qido.answers(peer, timeout=timeout)
    except PeerError as error:
        found.error = str(error)
        return found
    found.echo_seconds = time.monotonic() - begun
    found.find = True
    return found
