"""What follows SENT: making sure that the peer holds what it answered Success for.

A peer's `prove` names the way. "none" asks nothing, and its deliveries stay SENT: the peer's
status is all that is known. For every other way there may be a Proof; where there is none yet,
deliveries stay SENT likewise, and nothing is ever called PROVEN that was not asked for.
"""

from collections.abc import Sequence
from typing import Protocol

from node.config import Peer
from node.entities import Delivery
from node.index import DeliveryOutcome


class Proof(Protocol):
    """One way to make sure, such as storage commitment or C-FIND."""

    def ask(self, peer: Peer, own_ae: str, sent: Sequence[Delivery]) -> Sequence[DeliveryOutcome]:
        """What became of SENT deliveries: PROVEN, or PENDING where the peer lost one.

        A delivery that nothing is known of yet is left out. Raises PeerError.
        """
