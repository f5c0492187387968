"""Asks the peer that sent a series how many instances it has, beside the router's loop."""

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from node.config import Peer
from node.entities import SeriesRevision
from node.errors import PeerError

log = logging.getLogger("aenode.route")

_TIMEOUT_SECONDS = 5.0  # for connecting and for each answer
_ASKING_AT_ONCE = 4
_SPARED = timedelta(seconds=60)  # a peer that failed to answer is not asked for so long


class CountInstances(Protocol):
    """The shape of `node.dimse.scu.count_instances`."""

    def __call__(
        self, peer: Peer, own_ae: str, series_uid: str, *, study_uid: str = "", timeout: float = 30
    ) -> int | None:
        """The number that the peer lists, None where it does not say. Raises PeerError."""


@dataclass(slots=True)
class _Question:
    at: datetime
    peer: str
    answer: Future[int | None]
    failed: bool = False


class Source:
    """Questions under way and their answers, by series revision. Used from one thread."""

    def __init__(self, count: CountInstances) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(_ASKING_AT_ONCE, thread_name_prefix="ask-source")
        self._questions: dict[int, _Question] = {}
        self._spared_until: dict[str, datetime] = {}

    def may_ask(self, peer: Peer | None, now: datetime) -> bool:
        """Whether a peer can be asked: it has an address, answers C-FIND, and did not just fail to."""
        if peer is None or not peer.reachable or not peer.find:
            return False
        return self._spared_until.get(peer.name, now) <= now

    def ask(self, revision: SeriesRevision, peer: Peer, own_ae: str, now: datetime) -> None:
        """Put the question; the answer is seen in a later step."""
        answer = self._threads.submit(
            self._count,
            peer,
            own_ae,
            revision.series_instance_uid,
            study_uid=revision.study_instance_uid,
            timeout=_TIMEOUT_SECONDS,
        )
        self._questions[revision.id] = _Question(now, peer.name, answer)

    def asked_at(self, revision: SeriesRevision) -> datetime | None:
        """When the source of a revision was last asked."""
        question = self._questions.get(revision.id)
        return None if question is None else question.at

    def is_asking(self, revision: SeriesRevision) -> bool:
        """Whether the answer is still out."""
        question = self._questions.get(revision.id)
        return question is not None and not question.answer.done()

    def listed(self, revision: SeriesRevision, now: datetime) -> int | None:
        """The source's answer, where it gave one."""
        question = self._questions.get(revision.id)
        if question is None or not question.answer.done() or question.failed:
            return None
        try:
            return question.answer.result()
        except PeerError as error:
            question.failed = True
            self._spared_until[question.peer] = now + _SPARED
            log.info("%s; it is not asked for instance counts for %s", error, _SPARED)
            return None

    def forget_all_but(self, revisions: Iterable[SeriesRevision]) -> None:
        """Drop the questions of revisions that no longer wait."""
        waiting = {revision.id for revision in revisions}
        for id in self._questions.keys() - waiting:
            self._questions.pop(id).answer.cancel()

    def close(self) -> None:
        """Put no more questions."""
        self._threads.shutdown(wait=False, cancel_futures=True)
