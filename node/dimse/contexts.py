"""What we accept as an acceptor: SOP classes × transfer syntaxes. The conformance statement is made of it.

Images in the syntaxes that the workers' codecs decode, and what a study holds beside them, which is kept
and no rule is asked about: a PACS that forwards a whole study, our own results in it included, would try
again for ever where one context is refused. Anything else is refused at negotiation, so that its sender
knows before it sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pydicom import uid
from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from node.sop_classes import STORAGE_CLASSES, SOPClass


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax that we accept (PS3.5 A), and whether its codec can lose information."""

    uid: UID
    lossy: bool = False

    @property
    def encapsulated(self) -> bool:
        """Whether it encodes Pixel Data apart from the data set (PS3.5 A.4)."""
        return self.uid.is_encapsulated


VERIFICATION = UID("1.2.840.10008.1.1")  # PS3.4 A
# PS3.4 J: we ask; the peer's report may come on an association that it opens, with the roles reversed.
STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")

# The first that a context proposes is accepted: nothing to decode before what must be decoded, what
# loses nothing before what may.
STORAGE_SYNTAXES: tuple[Syntax, ...] = (
    Syntax(uid.ExplicitVRLittleEndian),
    Syntax(uid.ImplicitVRLittleEndian),
    Syntax(uid.DeflatedExplicitVRLittleEndian),
    Syntax(uid.RLELossless),
    Syntax(uid.JPEGLSLossless),
    Syntax(uid.JPEGLosslessSV1),
    Syntax(uid.JPEGLossless),
    Syntax(uid.JPEG2000Lossless),
    Syntax(uid.HTJ2KLossless),
    Syntax(uid.HTJ2KLosslessRPCL),
    Syntax(uid.ExplicitVRBigEndian),
    Syntax(uid.JPEG2000, lossy=True),
    Syntax(uid.HTJ2K, lossy=True),
    Syntax(uid.JPEGLSNearLossless, lossy=True),
    Syntax(uid.JPEGBaseline8Bit, lossy=True),
    Syntax(uid.JPEGExtended12Bit, lossy=True),
)

VERIFICATION_SYNTAXES: tuple[UID, ...] = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian)


def syntaxes_of(sop_class: SOPClass) -> list[UID]:
    """The transfer syntaxes of a storage class; only Pixel Data can be encapsulated."""
    return [syntax.uid for syntax in STORAGE_SYNTAXES if sop_class.pixels or not syntax.encapsulated]


@cache
def acceptable() -> Sequence[PresentationContext]:
    """The presentation contexts that we accept in the role of SCP, for pynetdicom's negotiation."""
    commitment = build_context(STORAGE_COMMITMENT, list(VERIFICATION_SYNTAXES))
    commitment.scu_role = commitment.scp_role = True
    return (
        build_context(VERIFICATION, list(VERIFICATION_SYNTAXES)),
        commitment,
        *(build_context(sop_class.uid, list(syntaxes_of(sop_class))) for sop_class in STORAGE_CLASSES),
    )


STORAGE_UIDS = frozenset(sop_class.uid for sop_class in STORAGE_CLASSES)
