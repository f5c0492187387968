"""What a peer answers and accepts, asked without sending it anything to keep.

C-ECHO, then one association for each kind of output, so that a peer that refuses one kind as a whole does
not hide the others, then storage commitment and C-FIND.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pydicom.uid import UID, ImplicitVRLittleEndian, generate_uid

from node.config import Peer
from node.dimse import outputs, scu
from node.dimse.contexts import STORAGE_COMMITMENT
from node.dimse.finding import listed_instances
from node.dimse.requestor import NothingAccepted, associated
from node.errors import PeerError
from node.job import Output
from node.transcoding import can_encode


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the peer accepts of one SOP class of one kind of output."""

    output: Output
    sop_class: UID
    syntaxes: tuple[UID, ...]  # of those asked for

    @property
    def storable(self) -> bool:
        """Whether our results of this class can be stored there, in one of the syntaxes asked for."""
        return any(s in outputs.NATIVE_SYNTAXES or can_encode(s) for s in self.syntaxes)


@dataclass(slots=True)
class Findings:
    """What a probe found. `error` says why it went no further."""

    peer: str
    echo_seconds: float | None = None  # None: C-ECHO is not provided, or `error` says why it was not asked
    max_pdu: int | None = None
    implementation: str = ""
    accepted: list[Accepted] = field(default_factory=list)
    commitment: bool = False
    find: bool = False
    find_error: str = ""
    store: bool = False  # a STOW-RS request without instances is taken; DICOMweb only
    store_error: str = ""
    error: str = ""


def probe(peer: Peer, own_ae: str, *, timeout: float = 10) -> Findings:
    """Ask a peer; `timeout` is in seconds, for each answer. Failures are findings, not errors."""
    found = Findings(peer.name)
    begun = time.monotonic()
    try:
        with suppress(NothingAccepted):  # every acceptor has to provide C-ECHO, but not every one does
            scu.echo(peer, own_ae, timeout=timeout)
            found.echo_seconds = time.monotonic() - begun
        for output in outputs.OUTPUT_CLASSES:
            found.accepted += _accepted(peer, own_ae, output, timeout, found)
        found.commitment = takes_commitment(peer, own_ae, timeout)
    except PeerError as error:
        found.error = str(error)
        return found
    try:
        # A series that nobody has: what counts is that the question is answered.
        listed_instances(peer, own_ae, [(generate_uid(), generate_uid())], timeout=timeout)
        found.find = True
    except PeerError as error:
        found.find_error = str(error)
    return found


def takes_commitment(peer: Peer, own_ae: str, timeout: float) -> bool:
    """Whether a peer accepts requests for storage commitment. Raises PeerError."""
    return bool(_contexts(peer, own_ae, [(STORAGE_COMMITMENT, ImplicitVRLittleEndian)], timeout))


def _accepted(peer: Peer, own_ae: str, output: Output, timeout: float, found: Findings) -> list[Accepted]:
    pairs = _contexts(peer, own_ae, outputs.proposed(output), timeout, found)
    return [
        Accepted(output, sop_class, tuple(syntax for uid, syntax in pairs if uid == sop_class))
        for sop_class in outputs.OUTPUT_CLASSES[output]
    ]


def _contexts(
    peer: Peer,
    own_ae: str,
    pairs: Sequence[tuple[UID, UID]],
    timeout: float,
    found: Findings | None = None,
) -> list[tuple[UID, UID]]:
    """Those of the pairs that the peer accepts, in our order."""
    try:
        with associated(peer, own_ae, pairs, timeout) as assoc:
            accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
            if found is not None:
                found.max_pdu = assoc.acceptor.maximum_length
                found.implementation = assoc.acceptor.implementation_version_name or ""
    except NothingAccepted:
        return []
    return [pair for pair in pairs if pair in accepted]
