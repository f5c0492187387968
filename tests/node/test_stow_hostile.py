"""STOW-RS as provider, and requests that are cut short, slow, huge, wrong or in the way of a stop."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.receiver import Receiver
from tests.node.stowing import (
    file_of,
    head,
    multipart,
    post,
    raw,
    receiver,
    referenced,
    said,
)
from tests.peers import LOOPBACK, wait_for
from tests.series import series


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as running:
        yield running


def test_too_many_parts(tmp_path: Path) -> None:
    """413; the answer still names what was stored."""
    images = series(4, 16)
    with receiver(tmp_path, web="max_instances = 2") as node:
        answer = post(node, multipart(map(file_of, images)))
        assert answer.status_code == 413
        assert referenced(said(answer)) == [str(ds.SOPInstanceUID) for ds in images[:2]]
        assert len(node.wait_indexed(2)) == 2


def test_what_is_cut_short_keeps_what_was_whole(node: Receiver) -> None:
    """A truncated body, a wrong boundary, no length: 400, or 202 where something is stored."""
    images = series(3, 16)
    body = multipart(map(file_of, images[:2]))
    cut = body[: len(body) // 2 + 700]
    answer = raw(node, head(Content_Length=len(body)) + cut, shut=True)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert b"application/dicom+json" in answer and b"49152" in answer  # 0xC000
    assert len(node.wait_indexed(1)) == 1
    answer = raw(node, head(Content_Length=len(cut), Connection="close") + cut)
    assert answer.startswith(b"HTTP/1.1 202 ")
    wrong = multipart([file_of(images[2])], "another")
    for given in (wrong, wrong * 80):  # 70 KB and more outside of parts are not waited for
        assert post(node, given).status_code == 400
    assert raw(node, head(Connection="close") + body).startswith(b"HTTP/1.1 400 ")
    assert len(node.spooled()) == 1
    assert not list((node.spool.root / "incoming").rglob("*.part"))


@pytest.mark.parametrize(
    "request_line",
    [
        b"\x01\0\xff\xff\xff\xff" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /studies HTTP/1.1\r\n\r\n",
        b"POST /studies HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"x" * 20_000,
        head(Content_Length="-1"),
        head(Content_Length="1, 2"),
        head(Transfer_Encoding="gzip"),
        head(Transfer_Encoding="chunked") + b"zzzz\r\n",
    ],
)
def test_what_is_not_http_is_answered_and_closed(node: Receiver, request_line: bytes) -> None:
    """4xx or 501, and an honest sender is served afterwards."""
    answer = raw(node, request_line)
    assert answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5"), answer
    assert b" 500 " not in answer.split(b"\r\n", 1)[0]
    assert post(node, multipart([file_of(series(1, 16)[0])])).status_code == 200


def test_slow_requests_have_their_slot_for_a_bounded_time(tmp_path: Path) -> None:
    """A head or an instance must be whole in time, however lively it looks; 408 tells what is kept."""
    images = series(2, 64)
    body = multipart(map(file_of, images))
    with receiver(tmp_path, acse_timeout_seconds=1, dimse_timeout_seconds=1, idle_timeout_seconds=2) as node:
        began = time.monotonic()
        assert raw(node, head()[:60]) == b""  # a head without an end
        with socket.create_connection((LOOPBACK, node.server.web_port or 0), 10) as slow:
            slow.sendall(head(Content_Length=len(body)) + body[: len(body) // 2 + 1000])
            answer = b""
            while not answer and time.monotonic() - began < 8:
                slow.settimeout(0.1)  # the drip is the attack
                try:
                    slow.sendall(b"\0")
                    answer = slow.recv(65536)
                except TimeoutError:
                    continue
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert str(images[0].SOPInstanceUID).encode() in answer
        wait_for(lambda: not node.server._running, what="the slot")
        assert time.monotonic() - began < 8
        assert len(node.wait_indexed(1)) == 1
        assert not list((node.spool.root / "incoming").rglob("*.part"))


def test_a_body_that_is_not_wanted_is_not_read(node: Receiver) -> None:
    """The answer to a head that is refused comes before the body; `Expect: 100-continue` is heeded."""
    sent = raw(node, head("/nowhere", Content_Length=1 << 40, Expect="100-continue"))
    assert sent.startswith(b"HTTP/1.1 404 ")
    body = multipart([file_of(series(1, 16)[0])])
    with socket.create_connection((LOOPBACK, node.server.web_port or 0), 10) as honest:
        honest.sendall(head(Content_Length=len(body), Expect="100-continue"))
        assert honest.recv(1000).startswith(b"HTTP/1.1 100 ")
        honest.sendall(body)
        assert honest.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_memory_is_bounded(node: Receiver) -> None:
    """An instance of 96 MiB costs the receiver no more than a few reads."""
    (ds,) = series(1, 16)
    big = file_of(ds)
    length = 96 << 20

    def body() -> Iterator[bytes]:
        whole = multipart(
            [big[: -len(ds.PixelData) - 12] + b"\xe0\x7f\x10\0OW\0\0" + length.to_bytes(4, "little")]
        )
        at = whole.rfind(b"\r\n--")
        yield whole[:at]
        for _ in range(length >> 20):
            yield bytes(1 << 20)
        yield whole[at:]

    before = _resident()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = post(node, body())
    done.set()
    watcher.join()
    assert answer.status_code == 200, answer.text
    (found,) = node.wait_indexed(1)
    assert found.size > length
    assert not found.defect
    assert peak[0] - before < 24 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_stop_while_a_request_is_under_way(tmp_path: Path) -> None:
    """It is let finish, and the connection is closed after its answer; one that waits is closed at once."""
    images = series(2, 16)
    body = multipart(map(file_of, images))
    with receiver(tmp_path, idle_timeout_seconds=20) as node:
        port = node.server.web_port or 0
        with (
            socket.create_connection((LOOPBACK, port), 10) as busy,
            socket.create_connection((LOOPBACK, port), 10) as idle,
        ):
            busy.sendall(head(Content_Length=len(body)) + body[:-500])
            wait_for(lambda: len(node.spooled()) == 1, what="the first instance")
            began = time.monotonic()
            node.stop.set()
            assert idle.recv(10) == b""
            busy.sendall(body[-500:])
            answer = b""
            while more := busy.recv(65536):
                answer += more
            assert answer.startswith(b"HTTP/1.1 200 ") and b"onnection: close" in answer
            assert time.monotonic() - began < 8
    assert len(node.spooled()) == 2
