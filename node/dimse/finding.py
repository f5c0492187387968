"""C-FIND at IMAGE level: which instances of a series a peer lists (PS3.4 C.6.2.1)."""

from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from node.config import Peer
from node.dimse.requestor import associated
from node.dimse.scu import STUDY_ROOT_FIND
from node.errors import PeerError

_PENDING = (0xFF00, 0xFF01)


def listed_instances(
    peer: Peer, own_ae: str, series: list[tuple[str, str]], *, timeout: float = 30
) -> dict[str, set[str]]:
    """The SOP Instance UIDs that a peer lists of each series, by SeriesInstanceUID.

    `series` holds pairs of StudyInstanceUID and SeriesInstanceUID; one association asks for all. Raises
    PeerError, NothingAccepted where the peer has no such service.
    """
    found: dict[str, set[str]] = {}
    with associated(peer, own_ae, [(STUDY_ROOT_FIND, UID(ImplicitVRLittleEndian))], timeout) as assoc:
        for study_uid, series_uid in series:
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.StudyInstanceUID = study_uid
            identifier.SeriesInstanceUID = series_uid
            identifier.SOPInstanceUID = ""
            listed = found.setdefault(series_uid, set())
            for answer, match in assoc.send_c_find(identifier, STUDY_ROOT_FIND):
                if "Status" not in answer:
                    raise PeerError(f"{peer.name}: the association ended before C-FIND was answered")
                if answer.Status in _PENDING:
                    if match is not None and match.get("SOPInstanceUID"):
                        listed.add(str(match.SOPInstanceUID))
                elif answer.Status != 0x0000:
                    raise PeerError(f"{peer.name}: C-FIND failed with status 0x{answer.Status:04X}")
    return found
