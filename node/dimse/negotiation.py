"""Association negotiation as acceptor: pynetdicom's codecs and context negotiation, our decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from node.dimse.pdu import ProtocolViolation
from node.dimse.status import (
    APPLICATION_CONTEXT_UNKNOWN,
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    PROTOCOL_VERSION_UNKNOWN,
    AbortReason,
    Rejection,
)
from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
_FIXED_BYTES = 68  # of an A-ASSOCIATE-RQ without its header, before the variable items (PS3.8 9.3.2)


@dataclass(frozen=True, slots=True)
class Titles:
    """The AE titles of a request, and whether it speaks version 1 of the protocol."""

    calling_ae: str
    called_ae: str
    version_1: bool


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an accepted request came to: its contexts by id, the peer's maximum, and the answer to send."""

    contexts: dict[int, Context]
    refused: int  # contexts
    peer_max_pdu: int  # 0: no maximum
    peer_implementation: str
    answer: bytes


def titles(body: memoryview) -> Titles:
    """The fixed fields of an A-ASSOCIATE-RQ. Raises ProtocolViolation where they are not all there."""
    if len(body) < _FIXED_BYTES:
        raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-RQ of {len(body)} bytes")
    return Titles(_title(body[20:36]), _title(body[4:20]), bool(body[1] & 1))


def _title(field: memoryview) -> str:
    return bytes(field).decode("ascii", "backslashreplace").strip(" \0")


def rejected(asked: Titles, ae_title: str, known: frozenset[str] | None) -> Rejection | None:
    """Why the titles are not accepted; None where they are. `known` None: any calling AE is."""
    if not asked.version_1:
        return PROTOCOL_VERSION_UNKNOWN
    if asked.called_ae != ae_title:
        return CALLED_AE_UNKNOWN
    if not asked.calling_ae or (known is not None and asked.calling_ae not in known):
        return CALLING_AE_UNKNOWN
    return None


def negotiate(
    body: memoryview, asked: Titles, acceptable: Sequence[PresentationContext], max_pdu: int
) -> Agreement | Rejection:
    """Answer the variable items of an A-ASSOCIATE-RQ. Raises ProtocolViolation where they are malformed."""
    request = _decoded(body)
    if request.application_context_name != APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_UNKNOWN
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in request.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
    }
    contexts, replies = negotiate_as_acceptor(
        request.presentation_context_definition_list, list(acceptable), roles
    )
    accepted = {
        cx.context_id: Context(cx.context_id, str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
        for cx in contexts
        if cx.result == 0 and cx.context_id is not None
    }
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(APPLICATION_CONTEXT)
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae, asked.called_ae
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = contexts
    answer.user_information = [*_own_items(max_pdu), *replies]
    return Agreement(
        accepted,
        len(contexts) - len(accepted),
        request.maximum_length_received or 0,
        _implementation(request),
        bytes(A_ASSOCIATE_AC(answer).encode()),
    )


def _decoded(body: memoryview) -> A_ASSOCIATE:
    pdu = A_ASSOCIATE_RQ()
    try:
        # The titles were judged from the fixed fields; what is not ASCII in them must not stop the rest.
        head = b"\x01\0" + len(body).to_bytes(4, "big") + bytes(body[:4]) + b"-".ljust(16) * 2
        pdu.decode(head + bytes(body[36:]))
        return pdu.to_primitive()
    except Exception as error:
        # The codec raises whatever a malformed item runs it into; all of it is the peer's doing.
        raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-RQ: {error!r}") from error


def _implementation(request: A_ASSOCIATE) -> str:
    for item in request.user_information:
        if isinstance(item, ImplementationVersionNameNotification):
            return str(item.implementation_version_name)
    return "of unnamed implementation"


def _own_items(
    max_pdu: int,
) -> list[
    MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification
]:
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]
