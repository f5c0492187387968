"""The index: the truth about what happened, and the only SQL of the node."""

from node.index.asking import Asking, JobReport, PeerStatus, SeriesReport, Status
from node.index.delivering import Delivering, DeliveryOutcome
from node.index.receiving import Receiving
from node.index.routing import Arrival, NewJob, Routing
from node.index.working import Submission, Working

__all__ = [
    "Arrival",
    "DeliveryOutcome",
    "Index",
    "JobReport",
    "NewJob",
    "PeerStatus",
    "SeriesReport",
    "Status",
    "Submission",
]


class Index(Receiving, Routing, Working, Delivering, Asking):
    """One database; `Index.open(settings)` opens it. Each base is one part of the node's view of it."""
