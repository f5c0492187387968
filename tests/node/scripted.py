"""A C-STORE provider that answers as it is told, to see what a sender makes of it."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pydicom.uid import UID
from pynetdicom import AE, evt

from node.config import Peer
from tests.peers import LOOPBACK

Answer = Callable[[int, str], int]


class ScriptedSCP:
    """`answer(number, sop_instance_uid)` gives the status of the request `number` (from 1), or ends it."""

    def __init__(
        self, classes: list[tuple[UID, list[UID]]], answer: Answer = lambda _n, _uid: 0x0000
    ) -> None:
        self.answer = answer
        self.received: list[tuple[str, bytes]] = []  # SOP instance UID, the data set's bytes
        self.rejects: tuple[int, int, int] | None = None  # result, source, reason of an A-ASSOCIATE-RJ
        self.associations = 0
        self.caller: tuple[str, str, str] | None = None  # AE title, implementation class and version
        self.aborts_at = 0  # the request that is answered by A-ABORT
        self._ae = AE()
        for sop_class, syntaxes in classes:
            self._ae.add_supported_context(sop_class, syntaxes)

    def _requested(self, event: evt.Event) -> None:
        self.associations += 1
        asks = event.assoc.requestor
        self.caller = (
            asks.primitive.calling_ae_title,
            str(asks.implementation_class_uid),
            asks.implementation_version_name,
        )
        if self.rejects:
            event.assoc.acse.send_reject(*self.rejects)
            event.assoc.kill()  # waits until it is sent

    def _stored(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.received.append((uid, event.encoded_dataset(include_meta=False)))
        if len(self.received) == self.aborts_at:
            event.assoc.abort()
        return self.answer(len(self.received), uid)

    def peer(self, name: str = "archive", **settings: object) -> Peer:
        """This provider as a peer of the settings."""
        port = self._server.server_address[1]
        return Peer.model_validate(
            {"name": name, "ae_title": "SCRIPTED", "address": f"{LOOPBACK}:{port}", **settings}
        )

    @property
    def uids(self) -> list[str]:
        return [uid for uid, _ in self.received]

    def __enter__(self) -> Self:
        handlers = [(evt.EVT_C_STORE, self._stored), (evt.EVT_REQUESTED, self._requested)]
        self._server = self._ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending = threading.Thread(target=self._server.shutdown)
        ending.start()
        with contextlib.suppress(OSError):  # wakes the server, which looks twice a second only
            socket.create_connection((LOOPBACK, self._server.server_address[1]), 1).close()
        ending.join()
        self._ae.shutdown()
