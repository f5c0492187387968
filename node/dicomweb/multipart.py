"""multipart bodies (RFC 2046 5.1) as they come: where parts begin and end, and their bytes between.

Nothing is gathered but what may be a delimiter, so that a part may have any length. The headers of
parts are stepped over: whether a part is a DICOM file is for its bytes to say.
"""

import re
from collections.abc import Iterator
from email.message import Message
from enum import Enum

from node.errors import AenodeError

_LONGEST_HEADERS = 8 << 10  # bytes, of one part
_LONGEST_PADDING = 256  # bytes of white space after a delimiter
_LONGEST_ASIDE = 64 << 10  # bytes before the first part and after the last together
# RFC 2046 allows 70 characters; Orthanc sends 73.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")


class MultipartError(AenodeError):
    """A body is not multipart, or not by this boundary."""


class Mark(Enum):
    """Where a part begins and ends."""

    BEGIN = "begin"
    END = "end"


class Multipart:
    """Takes a body in pieces of any length."""

    def __init__(self, boundary: str) -> None:
        """`boundary` as the Content-Type has it. Raises MultipartError where it can be none."""
        if not _BOUNDARY.fullmatch(boundary):
            raise MultipartError("the Content-Type has no boundary, or one that cannot be a boundary")
        self.closed = False  # the closing delimiter has come
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._held = b"\r\n"  # the first delimiter needs no line before it
        self._aside = 0
        self._in_part = self._in_headers = False

    def feed(self, data: bytes | bytearray) -> Iterator[Mark | memoryview]:
        """Marks, and the bytes of parts. Raises MultipartError."""
        whole = self._held + data
        at = 0
        while not self.closed:
            if self._in_headers:
                end = _end_of_headers(whole, at)
                if end is None:
                    break
                at, self._in_headers = end, False
                yield Mark.BEGIN
                continue
            found = whole.find(self._delimiter, at)
            until = found if found >= 0 else max(at, len(whole) - len(self._delimiter) + 1)
            if until > at:
                yield from self._content(memoryview(whole)[at:until])
            at = until
            if found < 0:
                break
            kind, at = self._delimited(whole, at)
            if kind is None:
                break
            if self._in_part:
                yield Mark.END
            self._in_part = self._in_headers = kind == b"\r\n"
            self.closed = not self._in_part
        if self.closed:
            self._set_aside(len(whole) - at)
            at = len(whole)
        self._held = whole[at:]

    def _content(self, content: memoryview) -> Iterator[memoryview]:
        if self._in_part:
            yield content
        else:
            self._set_aside(len(content))

    def _set_aside(self, count: int) -> None:
        self._aside += count
        if self._aside > _LONGEST_ASIDE:
            raise MultipartError(f"more than {_LONGEST_ASIDE} bytes outside of its parts: a wrong boundary?")

    def _delimited(self, whole: bytes, at: int) -> tuple[bytes | None, int]:
        """What a delimiter ends with, a line or the body, and the offset after it; None: it may go on.

        The end of its line is left: it also begins the blank line of a part without headers.
        """
        end = at + len(self._delimiter)
        if whole[end : end + 2] == b"--":
            return b"--", end + 2
        line = end
        while whole[line : line + 1] in (b" ", b"\t"):
            line += 1
        if line - end > _LONGEST_PADDING:
            raise MultipartError("a delimiter with too much white space after it")
        if whole[line : line + 2] == b"\r\n":
            return b"\r\n", line
        rest = whole[line : line + 2]
        if rest in (b"", b"\r", b"-"):
            return None, at
        raise MultipartError("a delimiter that its line does not end after")


def _end_of_headers(whole: bytes, at: int) -> int | None:
    end = whole.find(b"\r\n\r\n", at, at + _LONGEST_HEADERS)
    if end < 0 and len(whole) - at >= _LONGEST_HEADERS:
        raise MultipartError(f"a part with headers of more than {_LONGEST_HEADERS} bytes")
    return end + 4 if end >= 0 else None


def parameters(content_type: str) -> tuple[str, str, str]:
    """The media type of a Content-Type, its parameter `type`, and its boundary; empty where it has none."""
    message = Message()
    message["Content-Type"] = content_type
    kind, boundary = (message.get_param(name, "") for name in ("type", "boundary"))
    return message.get_content_type(), str(kind).lower(), str(boundary)
