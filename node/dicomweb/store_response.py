"""The answer of a STOW-RS provider: what became of each instance (PS3.18 10.5.3 and I)."""

import json
from http import HTTPStatus

from node.dimse.status import Status

# When each is answered (PS3.18 table 10.5.3-1 and 8.5).
STATUSES = {
    HTTPStatus.OK: "every instance is durable on disk and will be indexed",
    HTTPStatus.ACCEPTED: "some instances are, others are refused or did not come to their end",
    HTTPStatus.BAD_REQUEST: "no instance, no multipart body by its boundary, a body cut short, not HTTP/1.1",
    HTTPStatus.UNAUTHORIZED: "no token and no certificate of a peer",
    HTTPStatus.NOT_FOUND: "a path other than those above",
    HTTPStatus.METHOD_NOT_ALLOWED: "a method other than those above",
    HTTPStatus.NOT_ACCEPTABLE: "Accept leaves the answer's media type out",
    HTTPStatus.REQUEST_TIMEOUT: "an instance was not whole in time; the answer names what is stored",
    HTTPStatus.CONFLICT: "every instance is refused, each with its reason",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "more parts than are taken; the answer names what is stored",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "another Content-Type, or a Content-Encoding",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "a head of more than 16 KiB",
    HTTPStatus.INTERNAL_SERVER_ERROR: "an unexpected failure, which the log explains",
    HTTPStatus.NOT_IMPLEMENTED: "a Transfer-Encoding other than chunked",
    HTTPStatus.SERVICE_UNAVAILABLE: "no room, the peer's quota or limit, a stop: Retry-After says when again",
}
_RETRIEVE_URL = {"00081190": {"vr": "UR"}}  # type 2; nothing can be retrieved here
_SOP_CLASS, _SOP_INSTANCE, _REASON = "00081150", "00081155", "00081197"
_FAILED, _REFERENCED, _OTHERS = "00081198", "00081199", "0008119A"


class StoreResponse:
    """Gathers the outcomes of one request."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, str]] = []  # SOP Class and Instance UID
        self.failed: list[tuple[str, str, Status]] = []
        self.others: list[Status] = []  # of parts that name no instance
        self.broken: HTTPStatus | None = None  # why the request was not read to its end

    def status(self) -> HTTPStatus:
        """Of the whole request (PS3.18 table 10.5.3-1)."""
        if self.broken not in (None, HTTPStatus.BAD_REQUEST):
            return self.broken
        reasons = {reason for *_, reason in self.failed} | set(self.others)
        if self.stored:
            return HTTPStatus.ACCEPTED if reasons or self.broken else HTTPStatus.OK
        if reasons == {Status.OUT_OF_RESOURCES}:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.CONFLICT if self.failed and not self.broken else HTTPStatus.BAD_REQUEST

    def to_json(self) -> bytes:
        """The Store Instances Response Module in the DICOM JSON model (PS3.18 F)."""
        module: dict[str, object] = dict(_RETRIEVE_URL)
        if self.failed:
            module[_FAILED] = _sequence([_reference(*uids) | _reason(why) for *uids, why in self.failed])
        if self.stored:
            module[_REFERENCED] = _sequence([_reference(*uids) | _RETRIEVE_URL for uids in self.stored])
        if self.others:
            module[_OTHERS] = _sequence([_reason(why) for why in self.others])
        return json.dumps(module, separators=(",", ":")).encode("ascii")


Item = dict[str, object]


def _sequence(items: list[Item]) -> Item:
    return {"vr": "SQ", "Value": items}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Item:
    return {
        _SOP_CLASS: {"vr": "UI", "Value": [sop_class_uid]},
        _SOP_INSTANCE: {"vr": "UI", "Value": [sop_instance_uid]},
    }


def _reason(status: Status) -> Item:
    return {_REASON: {"vr": "US", "Value": [int(status)]}}
