"""What we accept as an acceptor: SOP classes × transfer syntaxes. The conformance statement is made of it.

Only images are listed, and only syntaxes that the workers' codecs decode. Any other class or
syntax is refused at negotiation, so that its sender knows before it sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pydicom import uid
from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context


@dataclass(frozen=True, slots=True)
class SOPClass:
    """A SOP class that we accept, and the modality or use it is listed for."""

    uid: UID
    family: str


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax that we accept (PS3.5 A), and whether its codec can lose information."""

    uid: UID
    lossy: bool = False


VERIFICATION = UID("1.2.840.10008.1.1")  # PS3.4 A
# PS3.4 J: we ask; the peer's report may come on an association that it opens, with the roles reversed.
STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")

# PS3.4 B.5
STORAGE_CLASSES: tuple[SOPClass, ...] = (
    SOPClass(uid.CTImageStorage, "CT"),
    SOPClass(uid.EnhancedCTImageStorage, "CT"),
    SOPClass(uid.LegacyConvertedEnhancedCTImageStorage, "CT"),
    SOPClass(uid.MRImageStorage, "MR"),
    SOPClass(uid.EnhancedMRImageStorage, "MR"),
    SOPClass(uid.EnhancedMRColorImageStorage, "MR"),
    SOPClass(uid.LegacyConvertedEnhancedMRImageStorage, "MR"),
    SOPClass(uid.PositronEmissionTomographyImageStorage, "PET"),
    SOPClass(uid.EnhancedPETImageStorage, "PET"),
    SOPClass(uid.LegacyConvertedEnhancedPETImageStorage, "PET"),
    SOPClass(uid.UltrasoundImageStorage, "US"),
    SOPClass(uid.UltrasoundMultiFrameImageStorage, "US"),
    SOPClass(uid.EnhancedUSVolumeStorage, "US"),
    SOPClass(uid.ComputedRadiographyImageStorage, "CR"),
    SOPClass(uid.DigitalXRayImageStorageForPresentation, "DX"),
    SOPClass(uid.DigitalXRayImageStorageForProcessing, "DX"),
    SOPClass(uid.DigitalMammographyXRayImageStorageForPresentation, "MG"),
    SOPClass(uid.DigitalMammographyXRayImageStorageForProcessing, "MG"),
    SOPClass(uid.BreastTomosynthesisImageStorage, "MG"),
    SOPClass(uid.XRayAngiographicImageStorage, "XA"),
    SOPClass(uid.EnhancedXAImageStorage, "XA"),
    SOPClass(uid.XRay3DAngiographicImageStorage, "XA"),
    SOPClass(uid.XRayRadiofluoroscopicImageStorage, "RF"),
    SOPClass(uid.EnhancedXRFImageStorage, "RF"),
    SOPClass(uid.SecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameSingleBitSecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameTrueColorSecondaryCaptureImageStorage, "SC"),
)

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


@cache
def acceptable() -> Sequence[PresentationContext]:
    """The presentation contexts that we accept in the role of SCP, for pynetdicom's negotiation."""
    syntaxes: list[str | UID] = [syntax.uid for syntax in STORAGE_SYNTAXES]
    commitment = build_context(STORAGE_COMMITMENT, list(VERIFICATION_SYNTAXES))
    commitment.scu_role = commitment.scp_role = True
    return (
        build_context(VERIFICATION, list(VERIFICATION_SYNTAXES)),
        commitment,
        *(build_context(sop_class.uid, syntaxes) for sop_class in STORAGE_CLASSES),
    )


STORAGE_UIDS = frozenset(sop_class.uid for sop_class in STORAGE_CLASSES)
