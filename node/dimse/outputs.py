"""What the node sends as SCU: SOP classes by kind of output, and the transfer syntaxes that are asked for."""

from pydicom import uid
from pydicom.uid import UID

from node.config import TransferSyntax
from node.job import Output
from node.transcoding import can_encode

# A derived series has the SOP class of its source (PS3.3 C.7.6.1.1.2); the others have their own.
OUTPUT_CLASSES: dict[Output, tuple[UID, ...]] = {
    "derived": (
        uid.CTImageStorage,
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
        uid.UltrasoundImageStorage,
        uid.UltrasoundMultiFrameImageStorage,
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
        uid.NuclearMedicineImageStorage,
    ),
    "capture": (uid.SecondaryCaptureImageStorage,),
    "segmentation": (uid.SegmentationStorage,),
    "report": (uid.Comprehensive3DSRStorage,),
    "parametric": (uid.ParametricMapStorage,),
    "presentation": (uid.GrayscaleSoftcopyPresentationStateStorage,),
    "keys": (uid.KeyObjectSelectionDocumentStorage,),
}
# One of these must do for documents and for what else has no Pixel Data of whole bytes; results are
# written as the first.
NATIVE_SYNTAXES: tuple[UID, ...] = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
# Of images only, in the order in which "auto" wants them: that of size, and JPEG-LS is the quicker.
COMPRESSED_SYNTAXES: tuple[UID, ...] = (
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2KLossless,
)
SYNTAX_NAMES: dict[UID, str] = {
    uid.ExplicitVRLittleEndian: "Explicit VR Little Endian",
    uid.ImplicitVRLittleEndian: "Implicit VR Little Endian",
    uid.JPEGLSLossless: "JPEG-LS",
    uid.JPEG2000Lossless: "JPEG 2000",
    uid.HTJ2KLosslessRPCL: "HTJ2K RPCL",
    uid.HTJ2KLossless: "HTJ2K",
}
WANTED: dict[TransferSyntax, tuple[UID, ...]] = {
    "explicit-little": (uid.ExplicitVRLittleEndian,),
    "jpeg-ls": (uid.JPEGLSLossless,),
    "jpeg-2000": (uid.JPEG2000Lossless,),
    "htj2k": (uid.HTJ2KLosslessRPCL, uid.HTJ2KLossless),
    "auto": COMPRESSED_SYNTAXES,
}
# Integer Pixel Data of 8 or 16 bits. A segmentation has one bit a pixel, which none of these codes; a
# parametric map has Float Pixel Data, which is never encapsulated (PS3.5 A.4); the others have no pixels.
IMAGE_OUTPUTS: frozenset[Output] = frozenset({"derived", "capture"})
COMPRESSIBLE = frozenset(sop_class for output in IMAGE_OUTPUTS for sop_class in OUTPUT_CLASSES[output])


def proposed(output: Output) -> list[tuple[UID, UID]]:
    """Pairs of SOP class and transfer syntax that a probe asks for."""
    syntaxes = NATIVE_SYNTAXES + (COMPRESSED_SYNTAXES if output in IMAGE_OUTPUTS else ())
    return [(sop_class, syntax) for sop_class in OUTPUT_CLASSES[output] for syntax in syntaxes]


def wanted(sop_class: UID, own: UID, setting: TransferSyntax) -> tuple[UID, ...]:
    """The transfer syntaxes that are right for a file, the best first. `own` is the one it is written in."""
    if own != uid.ExplicitVRLittleEndian or sop_class not in COMPRESSIBLE:
        return (own,)
    return WANTED[setting]


def offered(sop_class: UID, own: UID, setting: TransferSyntax) -> tuple[UID, ...]:
    """What is proposed for a file, the best first: what is wanted, what all should take, what else we can.

    A file that is compressed already goes as it is.
    """
    if own != uid.ExplicitVRLittleEndian:
        return (own,)
    rest = COMPRESSED_SYNTAXES if sop_class in COMPRESSIBLE else ()
    ordered = dict.fromkeys((*wanted(sop_class, own, setting), *NATIVE_SYNTAXES, *rest))
    return tuple(syntax for syntax in ordered if syntax in NATIVE_SYNTAXES or can_encode(syntax))
