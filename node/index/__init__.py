"""The index: the truth about what happened, and the only SQL of the node."""

from node.index.asking import Asking, JobReport, PeerStatus, SeriesReport, Status
from node.index.delivering import Delivering, DeliveryOutcome
from node.index.leases import Lease, Leases, Turn
from node.index.proving import Proving
from node.index.receiving import Receiving
from node.index.retaining import Purgeable, Retaining
from node.index.retiring import Retirement, Retiring
from node.index.routing import Arrival, EarlierJob, NewJob, Routing
from node.index.store import LeaseLost
from node.index.working import Submission

__all__ = [
    "Arrival",
    "DeliveryOutcome",
    "EarlierJob",
    "Index",
    "JobReport",
    "Lease",
    "LeaseLost",
    "NewJob",
    "PeerStatus",
    "Purgeable",
    "Retirement",
    "SeriesReport",
    "Status",
    "Submission",
    "Turn",
]


class Index(Receiving, Routing, Retiring, Delivering, Proving, Retaining, Leases, Asking):
    """One database; `Index.open(settings)` opens it. Each base is one part of the node's view of it."""
