"""QIDO-RS (PS3.18 10.6): whether a peer answers, how many instances a series has there, and which."""

from collections.abc import Sequence
from typing import Any

from dicomweb_client import DICOMwebClient
from requests import Session

from node.config import Peer
from node.dicomweb.session import base_url, session_with

_SOP_INSTANCE_UID, _SERIES_INSTANCE_UID, _SERIES_INSTANCES = "00080018", "0020000E", "00201209"
_PAGE = 1000  # instances asked for at once


def answers(peer: Peer, *, timeout: float = 30) -> None:
    """Ask for one study, whichever. Raises PeerError where that is not answered."""
    with session_with(peer) as session:
        _client(session, peer, timeout).search_for_studies(limit=1)


def count_instances(peer: Peer, series_uid: str, *, study_uid: str = "", timeout: float = 30) -> int | None:
    """NumberOfSeriesRelatedInstances of a series; None where the peer does not say. Raises PeerError."""
    with session_with(peer) as session:
        found = _client(session, peer, timeout).search_for_series(
            study_instance_uid=study_uid or None,
            fields=[_SERIES_INSTANCES],
            search_filters={"SeriesInstanceUID": series_uid},
        )
    counts = [
        _first(row, _SERIES_INSTANCES) for row in found if _first(row, _SERIES_INSTANCE_UID) == series_uid
    ]
    return next(
        (int(count) for count in counts if isinstance(count, int | str) and f"{count}".isdecimal()), None
    )


def listed_instances(
    peer: Peer, series: Sequence[tuple[str, str]], *, timeout: float = 30
) -> dict[str, set[str]]:
    """The SOP Instance UIDs that a peer lists of each series, by SeriesInstanceUID. Raises PeerError.

    `series` holds pairs of StudyInstanceUID and SeriesInstanceUID.
    """
    listed: dict[str, set[str]] = {}
    with session_with(peer) as session:
        client = _client(session, peer, timeout)
        for study_uid, series_uid in series:
            listed.setdefault(series_uid, set()).update(_listed(client, study_uid, series_uid))
    return listed


def _listed(client: DICOMwebClient, study_uid: str, series_uid: str) -> set[str]:
    """Page by page, until one has nothing new: a server that knows no offset gives the first for ever."""
    listed: set[str] = set()
    while True:
        page = client.search_for_instances(study_uid, series_uid, limit=_PAGE, offset=len(listed))
        uids = {uid for row in page if isinstance(uid := _first(row, _SOP_INSTANCE_UID), str)}
        if uids <= listed:
            return listed
        listed |= uids


def _client(session: Session, peer: Peer, timeout: float) -> DICOMwebClient:
    client = DICOMwebClient(base_url(peer), session=session, timeout=timeout)
    client.set_http_retry_params(retry=False)  # the outbox tries again, in its own time
    return client


def _first(row: Any, tag: str) -> object:
    """The first value of an attribute in the DICOM JSON model (PS3.18 F)."""
    values = row.get(tag, {}).get("Value") if isinstance(row, dict) else None
    return values[0] if values else None
