"""STOW-RS as provider (PS3.18 10.5): the files of a request go to the spool as those of an association do."""

import logging
import re
import uuid
from functools import cache
from http import HTTPStatus
from urllib.parse import urlsplit

from node.config import Peer
from node.dicomweb.multipart import Mark, Multipart, MultipartError, parameters
from node.dicomweb.part10 import FileHead, Named, NotPart10
from node.dicomweb.store_response import StoreResponse
from node.dimse import contexts
from node.dimse.negotiation import Titles
from node.dimse.status import Status
from node.errors import InstanceRefused
from node.receive.credentials import peer_of
from node.receive.http import Answer, Exchange, RequestBroken, plain
from node.receive.reception import Reception
from node.receive.storage import Announced, ArrivingInstance, InstanceStorage

log = logging.getLogger("aenode.receive")

RESPONSE_TYPE = "application/dicom+json"
REQUEST_TYPE = 'multipart/related; type="application/dicom"'
METHODS = "OPTIONS, POST"
_RETRY_AFTER = ("Retry-After", "30")
_STUDIES = re.compile(r"/studies(?:/([^/]+))?/?")
_UID = re.compile(r"[0-9.]{1,64}")
_ACCEPTABLE = ("*/*", "application/*", RESPONSE_TYPE, "application/json")


class StowService:
    """Answers the requests of every connection."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    def __call__(self, exchange: Exchange) -> Answer:
        """Judge a request by its head, then store what it brings."""
        settings = self._reception.settings
        peer = peer_of(settings.peers, exchange.header("authorization"), exchange.certificate)
        if peer is None:
            log.warning("a request from %s is refused: no token or certificate of a peer", exchange.host)
            sentence = "a bearer token or a client certificate of a peer is needed"
            return plain(HTTPStatus.UNAUTHORIZED, sentence, ("WWW-Authenticate", 'Bearer realm="aenode"'))
        if (fault := _fault(exchange)) is not None:
            log.warning("a request of %s is answered with HTTP %d", peer.name, fault.status)
            return fault
        if exchange.method == "OPTIONS":
            return plain(HTTPStatus.OK, "", ("Allow", METHODS), ("Accept-Post", REQUEST_TYPE))
        study = _STUDIES.fullmatch(urlsplit(exchange.target).path)
        try:
            multipart = Multipart(parameters(exchange.header("content-type"))[2])
        except MultipartError as error:
            return plain(HTTPStatus.BAD_REQUEST, str(error))
        request = _Request(peer, Titles(peer.title, settings.node.ae_title, version_1=True), exchange.host)
        if why := self._reception.admit(request.id, peer, peer.title):
            log.warning("%s rejected: %s", request, why.sentence)
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, why.sentence, _RETRY_AFTER)
        try:
            announced = Announced("file meta information", (study and study[1]) or "")
            storing = _Storing(self._reception.begin(request), request, announced)
            storing.read(exchange, multipart, settings.dicomweb.max_instances)
        finally:
            self._reception.end(request, one_of_many=True)
        return _answer(request)


@cache
def _storable() -> dict[str, frozenset[str]]:
    """The transfer syntaxes of each SOP class that an association may store."""
    not_stored = (contexts.VERIFICATION, contexts.STORAGE_COMMITMENT)
    return {
        str(context.abstract_syntax): frozenset(map(str, context.transfer_syntax))
        for context in contexts.acceptable()
        if context.abstract_syntax not in not_stored
    }


class _Request:
    """A STOW-RS request as the carrier of its instances."""

    def __init__(self, peer: Peer, titles: Titles, host: str) -> None:
        self.id = uuid.uuid4().hex
        self.host = host
        self.titles = titles
        self.refused = 0
        self.response = StoreResponse()
        self._name = peer.name

    def __str__(self) -> str:
        return f"STOW-RS request {self.id[:8]} of {self._name} at {self.host}"


def _fault(exchange: Exchange) -> Answer | None:
    """What the head of a request has wrong; None: nothing."""
    path = _STUDIES.fullmatch(urlsplit(exchange.target).path)
    if path is None:
        return plain(HTTPStatus.NOT_FOUND, "here are /studies and /studies/{study} only")
    if exchange.method not in METHODS.split(", "):
        return plain(HTTPStatus.METHOD_NOT_ALLOWED, "only to be stored to", ("Allow", METHODS))
    if exchange.method == "OPTIONS":
        return None
    if path[1] is not None and not _UID.fullmatch(path[1]):
        return plain(HTTPStatus.BAD_REQUEST, "the path has no Study Instance UID")
    return _unsupported(exchange)


def _unsupported(exchange: Exchange) -> Answer | None:
    """What of the media types that are sent or asked for we do not do; None: nothing."""
    media_type, kind, _ = parameters(exchange.header("content-type"))
    # Senders that leave the parameter out send files all the same.
    if media_type != "multipart/related" or kind not in ("", "application/dicom"):
        return plain(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"taken is {REQUEST_TYPE}", ("Accept-Post", REQUEST_TYPE)
        )
    if exchange.header("content-encoding").lower() not in ("", "identity"):
        return plain(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "no Content-Encoding is taken")
    accepted = [part.partition(";")[0].strip().lower() for part in exchange.header("accept").split(",")]
    if not {"", *_ACCEPTABLE}.intersection(accepted):
        return plain(HTTPStatus.NOT_ACCEPTABLE, f"the answer is {RESPONSE_TYPE}")
    return None


class _Storing:
    """Stores the parts of one request, one at a time."""

    def __init__(self, storage: InstanceStorage, request: _Request, announced: Announced) -> None:
        self._storage = storage
        self._request = request
        self._announced = announced
        self._head: FileHead | None = None  # of a part whose data set has not begun
        self._named: Named | None = None
        self._arriving: ArrivingInstance | None = None

    def read(self, exchange: Exchange, multipart: Multipart, limit: int) -> None:
        """Read the body to its end, or as far as it can be read."""
        parts = 0
        try:
            for data in exchange.body():
                for piece in multipart.feed(data):
                    if piece is Mark.BEGIN:
                        parts += 1
                        if parts > limit:
                            why = f"more than {limit} parts (dicomweb.max_instances)"
                            raise RequestBroken(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
                        self._head = FileHead()
                    elif piece is Mark.END:
                        self._end()
                        exchange.renew()
                    elif isinstance(piece, memoryview):
                        self._take(piece)
            if not multipart.closed:
                why = "the body ends before its closing delimiter"
                raise RequestBroken(HTTPStatus.BAD_REQUEST, why)
        except MultipartError as error:
            self._break(HTTPStatus.BAD_REQUEST, error)
        except RequestBroken as error:
            self._break(error.status, error)
        finally:
            if self._arriving is not None:
                self._arriving.discard()

    def _take(self, data: memoryview) -> None:
        try:
            if self._head is not None:
                begun = self._head.add(data)
                if begun is None:
                    return
                self._head = None
                self._named, first = begun
                self._begin(self._named)
                data = memoryview(first)
            if self._arriving is not None:
                self._arriving.write(data)
        except NotPart10 as error:
            self._refuse(InstanceRefused(Status.CANNOT_UNDERSTAND, f"not a DICOM file: {error}"))
        except InstanceRefused as error:
            self._refuse(error)

    def _begin(self, named: Named) -> None:
        syntaxes = _storable().get(named.sop_class_uid)
        if syntaxes is None:
            raise InstanceRefused(Status.SOP_CLASS_NOT_SUPPORTED, "a SOP class that is not taken")
        if named.transfer_syntax_uid not in syntaxes:
            raise InstanceRefused(Status.SYNTAX_NOT_SUPPORTED, "a transfer syntax that is not taken")
        self._arriving = self._storage.begin_instance(
            named.sop_class_uid, named.sop_instance_uid, named.transfer_syntax_uid, self._announced
        )

    def _end(self) -> None:
        """The part is here as a whole."""
        try:
            if self._head is not None:
                raise InstanceRefused(Status.CANNOT_UNDERSTAND, "not a DICOM file: it ends too early")
            if self._arriving is not None and self._named is not None:
                self._arriving.finish()
                self._request.response.stored.append(
                    (self._named.sop_class_uid, self._named.sop_instance_uid)
                )
                self._arriving = self._named = None
        except InstanceRefused as error:
            self._refuse(error)

    def _refuse(self, error: InstanceRefused) -> None:
        """The part under way is not stored; what is left of it is thrown away."""
        if self._arriving is not None:
            self._arriving.discard()
        response, named, status = self._request.response, self._named, Status(error.status)
        self._request.refused += 1
        if named is not None:
            response.failed.append((named.sop_class_uid, named.sop_instance_uid, status))
        else:
            response.others.append(status)
        who = named.sop_instance_uid if named else "a part"
        log.warning("%s: %s refused with 0x%04X: %s", self._request, who, status, error)
        self._head = self._named = self._arriving = None

    def _break(self, status: HTTPStatus, error: Exception) -> None:
        log.warning("%s is broken off: %s", self._request, error)
        self._request.response.broken = status
        if self._head is not None or self._arriving is not None:
            self._refuse(InstanceRefused(Status.CANNOT_UNDERSTAND, "it did not come to its end"))


def _answer(request: _Request) -> Answer:
    response = request.response
    status = response.status()
    log.info(
        "%s ended with HTTP %d: %d stored, %d refused", request, status, len(response.stored), request.refused
    )
    headers = (_RETRY_AFTER,) if status == HTTPStatus.SERVICE_UNAVAILABLE else ()
    return Answer(status, response.to_json(), RESPONSE_TYPE, headers)
