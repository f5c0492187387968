"""How a peer is reached: over DICOMweb where its settings have a URL, else by DIMSE."""

from collections.abc import Generator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from node.config import Peer, host_port
from node.dicomweb import qido, stow
from node.dimse import finding, scu
from node.dimse.outgoing import StoreResult


def host_of(peer: Peer) -> str:
    """The host that results go to; empty where the peer can only send."""
    if peer.dicomweb is not None:
        return urlsplit(peer.dicomweb).hostname or ""
    return "" if peer.address is None else host_port(peer.address)[0]


def store_each(
    peer: Peer, own_ae: str, files: Sequence[Path], *, timeout: float = 30
) -> Generator[StoreResult, None, None]:
    """Send Part-10 files, each result as soon as it is known. Raises PeerError."""
    send = scu.store_each if peer.dicomweb is None else stow.store_each
    return send(peer, own_ae, files, timeout=timeout)


def echo(peer: Peer, own_ae: str, *, timeout: float = 30) -> None:
    """Ask whether the peer answers. Raises PeerError.

    By C-ECHO; over DICOMweb by a QIDO-RS query for one study, or, where the peer has no queries, by a
    STOW-RS request without an instance.
    """
    if peer.dicomweb is None:
        scu.echo(peer, own_ae, timeout=timeout)
    elif peer.find:
        qido.answers(peer, timeout=timeout)
    else:
        stow.answers(peer, timeout=timeout)


def count_instances(
    peer: Peer, own_ae: str, series_uid: str, *, study_uid: str = "", timeout: float = 30
) -> int | None:
    """How many instances of a series the peer lists; None where it does not say. Raises PeerError."""
    if peer.dicomweb is None:
        return scu.count_instances(peer, own_ae, series_uid, study_uid=study_uid, timeout=timeout)
    return qido.count_instances(peer, series_uid, study_uid=study_uid, timeout=timeout)


def listed_instances(
    peer: Peer, own_ae: str, series: list[tuple[str, str]], *, timeout: float = 30
) -> dict[str, set[str]]:
    """The SOP Instance UIDs that a peer lists of each series, by SeriesInstanceUID. Raises PeerError."""
    if peer.dicomweb is None:
        return finding.listed_instances(peer, own_ae, series, timeout=timeout)
    return qido.listed_instances(peer, series, timeout=timeout)
