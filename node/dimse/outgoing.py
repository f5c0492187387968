"""One file on its way to a peer: what it is, which transfer syntaxes it may go in, and which it goes in.

A data set goes out as the bytes that lie on disk. Only an uncompressed one is encoded anew: without loss,
where the peer's settings want that and the peer accepts it, or because the peer accepts nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian

from node.config import Peer
from node.dimse import outputs
from node.dimse.outcome import Outcome
from node.transcoding import CannotTranscode, transcode


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of one file. `status` is None where the peer gave no answer to it."""

    path: Path
    outcome: Outcome
    reason: str
    status: int | None = None
    tried: bool = True  # False: the association ended before its turn came


@dataclass(frozen=True, slots=True)
class Encoded:
    """What is sent of a file: the file itself, or its data set encoded anew."""

    data: Path | pydicom.Dataset
    syntax: UID
    failed: str = ""  # why those that came before this syntax could not be had


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file that may be sent."""

    path: Path
    sop_class: UID
    sop_instance: UID
    syntax: UID
    size: int  # bytes
    wanted: tuple[UID, ...]  # transfer syntaxes, the best first
    offered: tuple[UID, ...]  # all that it may go in, those that are wanted before the others

    @property
    def contexts(self) -> list[tuple[UID, UID]]:
        """Pairs of abstract and transfer syntax to propose for it, the best first."""
        return [(self.sop_class, syntax) for syntax in self.offered]

    def encoded(self, syntaxes: Sequence[UID]) -> Encoded:
        """It in the first of the accepted `syntaxes` that its pixels can be had in.

        Raises CannotTranscode where there is none, OSError, and what reading it as DICOM raises.
        """
        failed: list[str] = []
        for syntax in syntaxes:
            if syntax == self.syntax:
                return Encoded(self.path, syntax, "; ".join(failed))
            if syntax == ImplicitVRLittleEndian:
                return Encoded(pydicom.dcmread(self.path), syntax, "; ".join(failed))
            try:
                return Encoded(transcode(self.path, syntax), syntax, "; ".join(failed))
            except CannotTranscode as error:
                failed.append(str(error))
        raise CannotTranscode("; ".join(failed))

    def told(self, sent: Encoded, peer: Peer) -> str:
        """How it was encoded, for its timeline; empty where it went as it lies and was to."""
        if sent.syntax == self.wanted[0] == self.syntax:
            return ""
        name = _name(sent.syntax)
        if sent.syntax in self.wanted:
            return f", in {name}"
        missed = " or ".join(map(_name, self.wanted))
        if sent.failed:
            why = sent.failed
        elif set(self.wanted).isdisjoint(self.offered):
            why = f"no encoder for {missed} is installed"
        else:
            why = f"{peer.name} accepts no {self.sop_class.name} in {missed}"
        return f", in {name}: {why}"

    def unsupported(self, peer: Peer) -> StoreResult:
        """The result where the peer accepts none of its presentation contexts."""
        alone = self.offered == (self.syntax,)
        how = _name(self.syntax) if alone else "any transfer syntax that it could be sent in"
        reason = f"{peer.name} accepts no {self.sop_class.name} in {how}"
        return StoreResult(self.path, Outcome.UNSUPPORTED, reason)


def describe(path: Path, peer: Peer) -> Outgoing | StoreResult:
    """What a file's meta information says it is, or why it cannot be sent."""
    try:
        meta = read_file_meta_info(path)
        size = path.stat().st_size
    except OSError as error:
        return StoreResult(path, Outcome.RETRY, f"the file cannot be read: {error.strerror}")
    except (InvalidDicomError, ValueError, EOFError) as error:
        return StoreResult(path, Outcome.REFUSED, f"not a DICOM file: {type(error).__name__}")
    needed = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    if missing := [keyword for keyword in needed if not meta.get(keyword)]:
        return StoreResult(path, Outcome.REFUSED, f"the file's meta information lacks {', '.join(missing)}")
    sop_class, syntax = meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID
    how = sop_class, syntax, peer.transfer_syntax
    return Outgoing(
        path,
        sop_class,
        meta.MediaStorageSOPInstanceUID,
        syntax,
        size,
        outputs.wanted(*how),
        outputs.offered(*how),
    )


def _name(syntax: UID) -> str:
    return outputs.SYNTAX_NAMES.get(syntax, syntax.name)
