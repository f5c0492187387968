"""What an answer to C-STORE means for the sender: kept, try again, or never again.

PS3.4 B.2.3 and PS3.7 C. A warning means that the peer keeps the instance. Out of resources
(A7xx) and a processing failure pass; what the peer says of the instance itself does not.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of one instance."""

    STORED = "STORED"  # 0x0000
    WARNING = "WARNING"  # stored, with a remark of the peer
    RETRY = "RETRY"  # not stored; another attempt may succeed
    REFUSED = "REFUSED"  # not stored; another attempt cannot succeed
    UNSUPPORTED = "UNSUPPORTED"  # not stored; the peer takes nothing of this SOP class

    @property
    def kept(self) -> bool:
        """Whether the peer has the instance."""
        return self in (Outcome.STORED, Outcome.WARNING)

    @property
    def final(self) -> bool:
        """Whether the peer has judged the instance, and another attempt cannot succeed."""
        return self in (Outcome.REFUSED, Outcome.UNSUPPORTED)


_SENTENCES: dict[int, tuple[Outcome, str]] = {
    0x0000: (Outcome.STORED, "stored"),
    # Warnings, PS3.7 C.3 and PS3.4 B.2.3
    0x0001: (Outcome.WARNING, "stored, with a warning"),
    0x0107: (Outcome.WARNING, "stored, with a warning about attributes"),
    0x0116: (Outcome.WARNING, "stored, an attribute value is out of range"),
    0xB000: (Outcome.WARNING, "stored, data elements were coerced"),
    0xB006: (Outcome.WARNING, "stored, data elements were discarded"),
    0xB007: (Outcome.WARNING, "stored, the data set does not match its SOP class"),
    # No status of C-STORE, but archives answer it. The same UID is the same content: UIDs are deterministic.
    0x0111: (Outcome.WARNING, "the peer already has an instance of this UID"),
    # Failures, PS3.7 C.5
    0x0105: (Outcome.REFUSED, "no such attribute"),
    0x0106: (Outcome.REFUSED, "invalid attribute value"),
    0x0110: (Outcome.RETRY, "processing failure at the peer"),
    0x0112: (Outcome.REFUSED, "no such SOP instance"),
    0x0115: (Outcome.REFUSED, "invalid argument value"),
    0x0117: (Outcome.REFUSED, "invalid SOP instance UID"),
    0x0118: (Outcome.UNSUPPORTED, "no such SOP class"),
    0x0119: (Outcome.REFUSED, "the peer reports a conflict of class and instance"),
    0x0120: (Outcome.REFUSED, "missing attribute"),
    0x0121: (Outcome.REFUSED, "missing attribute value"),
    0x0122: (Outcome.UNSUPPORTED, "SOP class not supported"),
    0x0124: (Outcome.REFUSED, "the peer does not permit it"),
    0x0210: (Outcome.RETRY, "duplicate invocation"),
    0x0211: (Outcome.REFUSED, "unrecognised operation"),
    0x0212: (Outcome.REFUSED, "mistyped argument"),
    0x0213: (Outcome.RETRY, "resource limitation at the peer"),
}

_RANGES: dict[int, tuple[Outcome, str]] = {
    0xA7: (Outcome.RETRY, "the peer is out of resources"),
    0xA9: (Outcome.REFUSED, "the data set does not match its SOP class"),
    **dict.fromkeys(range(0xB0, 0xC0), (Outcome.WARNING, "stored, with a warning")),
    **dict.fromkeys(range(0xC0, 0xD0), (Outcome.REFUSED, "the peer cannot understand it")),
}


def of_status(status: int) -> tuple[Outcome, str]:
    """Outcome and sentence of a C-STORE status. A status that no table lists is tried again."""
    unknown = (Outcome.RETRY, "a status that the standard does not define")
    outcome, sentence = _SENTENCES.get(status) or _RANGES.get(status >> 8) or unknown
    return outcome, f"{sentence} (0x{status:04X})"


def outcomes() -> list[tuple[str, Outcome, str]]:
    """All statuses and ranges of statuses that are known, for the conformance statement."""
    known = [(f"0x{status:04X}", *meaning) for status, meaning in sorted(_SENTENCES.items())]
    ranges: dict[str, tuple[Outcome, str]] = {}
    for high, meaning in _RANGES.items():
        ranges[f"0x{high:02X}xx" if high < 0xB0 else f"other 0x{high >> 4:X}xxx"] = meaning
    return known + [(name, *meaning) for name, meaning in ranges.items()]
