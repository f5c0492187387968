"""multipart bodies cut anywhere give the same parts, and what is none is said to be none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dicomweb.multipart import Mark, Multipart, MultipartError, parameters
from node.dicomweb.part10 import FileHead, NotPart10
from tests.node.stowing import BOUNDARY, file_of, multipart
from tests.series import series

# Bytes that look like delimiters as often as not.
_PART = st.lists(
    st.sampled_from([b"\r", b"\n", b"--", b"\r\n--", b"a-boundary", b"x", b"\r\n\r\n", b"\0"])
).map(b"".join)


def parts_of(body: bytes, size: int, boundary: str = BOUNDARY) -> tuple[list[bytes], bool]:
    """The parts of a body that is fed in pieces of a size, and whether it was closed."""
    parser, parts, open_part = Multipart(boundary), [], bytearray()
    for at in range(0, len(body), size):
        for piece in parser.feed(body[at : at + size]):
            if piece is Mark.BEGIN:
                open_part = bytearray()
            elif piece is Mark.END:
                parts.append(bytes(open_part))
            else:
                open_part += piece
    return parts, parser.closed


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(_PART, max_size=4), size=st.integers(1, 90))
def test_parts_come_out_as_they_went_in(parts: list[bytes], size: int) -> None:
    """Whatever bytes they have, and wherever the reads fall."""
    assert parts_of(multipart(parts), size) == (parts, True)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_rfc_2046_allows_around_parts(size: int) -> None:
    """A preamble, an epilogue, no headers, many headers, white space after a delimiter."""
    body = (
        b"preamble\r\n--b \t\r\n\r\nfirst\r\n--b\r\nContent-Type: application/dicom\r\nContent-ID: x\r\n"
        b"\r\nsecond\r\n--b--\r\nepilogue --b\r\n\r\n"
    )
    assert parts_of(body, size, "b") == ([b"first", b"second"], True)
    assert parts_of(body[:60], size, "b") == ([b"first"], False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\0" * 70_000, "outside of its parts"),
        (b"--b--" + b"\0" * 70_000, "outside of its parts"),
        (b"--b\r\n" + b"x" * 9_000, "headers of more than"),
        (b"--b\r\n\r\nx\r\n--bc\r\n\r\ny\r\n--b--", "that its line does not end after"),
        (b"--b" + b" " * 300 + b"\r\n", "white space"),
    ],
)
def test_what_is_not_multipart(body: bytes, said: str) -> None:
    """An error in bounded memory, however long it goes on."""
    with pytest.raises(MultipartError, match=said):
        parts_of(body, 1000, "b")


@pytest.mark.parametrize("boundary", ["", "a\r\nb", "ends with a space ", "x" * 201, "ü"])
def test_boundaries_that_are_none(boundary: str) -> None:
    """RFC 2046 5.1.1, but for their length, which Orthanc breaks."""
    with pytest.raises(MultipartError):
        Multipart(boundary)


def test_content_types() -> None:
    """Quoted or not, in any case and order."""
    for text in (
        'multipart/related; type="application/dicom"; boundary=b',
        'Multipart/Related;boundary="b";TYPE=application/dicom',
    ):
        assert parameters(text) == ("multipart/related", "application/dicom", "b")
    assert parameters("application/dicom")[1:] == ("", "")


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 340), flip=st.binary(max_size=8), size=st.integers(1, 200))
def test_a_file_s_head_is_read_or_refused(at: int, flip: bytes, size: int) -> None:
    """In pieces of any size and with bytes overwritten: its names, or NotPart10, and nothing else."""
    raw = bytearray(file_of(series(1, 8)[0]))
    raw[at : at + len(flip)] = flip
    head = FileHead()
    try:
        for begin in range(0, len(raw), size):
            if begun := head.add(memoryview(raw)[begin : begin + size]):
                assert begun[1] == bytes(raw[begin + size - len(begun[1]) : begin + size])[: len(begun[1])]
                return
    except NotPart10:
        assert flip
