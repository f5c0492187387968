"""What we answer, by name: DIMSE statuses, rejections of associations and aborts."""

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """Statuses that we answer; MEANINGS says when, and by which clause."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_ARGUMENT = 0x0115
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    UNRECOGNIZED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    SYNTAX_NOT_SUPPORTED = 0xC122


@dataclass(frozen=True, slots=True)
class Meaning:
    """When a status is answered, and the clause that defines it."""

    clause: str
    sentence: str


MEANINGS: dict[Status, Meaning] = {
    Status.SUCCESS: Meaning(
        "PS3.7 C.1.1", "C-ECHO: done. C-STORE: the instance is durable on disk and will be indexed"
    ),
    Status.PROCESSING_FAILURE: Meaning("PS3.7 C.5", "an unexpected failure, which the log explains"),
    Status.INVALID_ARGUMENT: Meaning(
        "PS3.7 C.5", "N-EVENT-REPORT: a report that cannot be read, or of no transaction with this peer"
    ),
    Status.SOP_CLASS_NOT_SUPPORTED: Meaning(
        "PS3.7 C.5",
        "the request's SOP class is not that of its presentation context; STOW-RS: not one that we take",
    ),
    Status.UNRECOGNIZED_OPERATION: Meaning(
        "PS3.7 C.5", "a request other than C-STORE, C-ECHO and N-EVENT-REPORT"
    ),
    Status.OUT_OF_RESOURCES: Meaning(
        "PS3.4 B.2.3",
        "less free space than receive.min_free, a full disk or the peer's quota, or a stuck index",
    ),
    Status.DATA_SET_MISMATCH: Meaning(
        "PS3.4 B.2.3",
        "command and data set disagree on the SOP class or the SOP instance; STOW-RS: file meta information"
        " and data set do, or the study is not that of the request",
    ),
    Status.CANNOT_UNDERSTAND: Meaning(
        "PS3.4 B.2.3", "no data set, no SOP class or instance UID in it, or a header that cannot be decoded"
    ),
    Status.SYNTAX_NOT_SUPPORTED: Meaning(
        "PS3.18 I.2.2", "STOW-RS: a transfer syntax that is not one of those that we take"
    ),
}


class RejectResult(IntEnum):
    """Result of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    PERMANENT = 1
    TRANSIENT = 2


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason (PS3.8 table 9-21), and the sentence for the log."""

    result: RejectResult
    source: int
    reason: int
    sentence: str


APPLICATION_CONTEXT_UNKNOWN = Rejection(RejectResult.PERMANENT, 1, 2, "application context not supported")
CALLING_AE_UNKNOWN = Rejection(RejectResult.PERMANENT, 1, 3, "calling AE title not recognized")
CERTIFICATE_NOT_ITS_OWN = Rejection(
    RejectResult.PERMANENT, 1, 3, "the calling AE title is bound to another certificate (client_certificate)"
)
CALLED_AE_UNKNOWN = Rejection(RejectResult.PERMANENT, 1, 7, "called AE title not recognized")
PROTOCOL_VERSION_UNKNOWN = Rejection(RejectResult.PERMANENT, 2, 2, "protocol version not supported")
TOO_MANY_ASSOCIATIONS = Rejection(RejectResult.TRANSIENT, 3, 2, "limit of associations reached")
LOW_DISK = Rejection(RejectResult.TRANSIENT, 3, 2, "less free space than receive.min_free")
QUOTA = Rejection(RejectResult.TRANSIENT, 3, 2, "the peer's quota is used up")
TOO_MANY_OF_PEER = Rejection(RejectResult.TRANSIENT, 3, 2, "limit of associations of this peer reached")
STOPPING = Rejection(RejectResult.TRANSIENT, 3, 1, "this node is stopping")
REJECTIONS = (
    APPLICATION_CONTEXT_UNKNOWN,
    CALLING_AE_UNKNOWN,
    CERTIFICATE_NOT_ITS_OWN,
    CALLED_AE_UNKNOWN,
    PROTOCOL_VERSION_UNKNOWN,
    TOO_MANY_ASSOCIATIONS,
    LOW_DISK,
    QUOTA,
    TOO_MANY_OF_PEER,
    STOPPING,
)


class AbortSource(IntEnum):
    """Who aborts (PS3.8 table 9-26)."""

    USER = 0
    PROVIDER = 2


class AbortReason(IntEnum):
    """Why the provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6
