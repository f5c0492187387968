"""The part of the conformance statement about DICOMweb as origin server (PS3.18 10.5)."""

from collections.abc import Iterable

from node.config import DICOMweb
from node.dicomweb.store_response import STATUSES
from node.markdown import prose, table
from node.receive.stowing import METHODS, REQUEST_TYPE, RESPONSE_TYPE


def origin_server() -> Iterable[str]:
    """The service, its answers, and who may use it."""
    yield "### DICOMweb as origin server"
    yield ""
    yield from prose(
        "STOW-RS only, where `dicomweb.bind` is set: HTTP/1.1, with or without TLS, bodies with a length",
        "or chunked. SOP classes, transfer syntaxes and the meaning of each FailureReason are those of",
        "storage as SCP. A part is one DICOM file (PS3.10); its data set is kept as the bytes that came.",
    )
    yield ""
    yield from table(
        ("request", "media type", "answer"),
        [
            ("POST {s}/studies", REQUEST_TYPE, RESPONSE_TYPE),
            ("POST {s}/studies/{study}", REQUEST_TYPE, RESPONSE_TYPE),
            ("OPTIONS {s}/studies", "none", f"Allow: {METHODS}"),
        ],
    )
    yield from table(("HTTP", "when"), [(f"{status:d}", when) for status, when in STATUSES.items()])
    yield from prose(
        "FailedSOPSequence and ReferencedSOPSequence name each instance; parts that name none are in",
        "OtherFailuresSequence. RetrieveURL is empty: nothing can be retrieved. A request has the limits of",
        "an association: `max_associations`, `quota`, and `acse_`, `idle_` and `dimse_timeout_seconds`, for",
        "its head, for silence and for each instance. At most",
        f"{DICOMweb().max_instances} parts (`dicomweb.max_instances`).",
    )
    yield ""


def access() -> Iterable[str]:
    """Who gets in."""
    yield from prose(
        "A STOW-RS request must bring the bearer token of a peer (RFC 6750) or come over TLS with a peer's",
        "client certificate, or both where its settings ask for both. Its instances have the peer's AE",
        "title, or its name where it has none, as calling AE title. Beyond the machine itself TLS is",
        "compulsory. A peer's `client_certificate` binds its calling AE title over DICOM TLS as well.",
    )
