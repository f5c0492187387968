"""What the node sends as SCU: SOP classes by kind of output, and the transfer syntaxes that are asked for."""

from pydicom import uid
from pydicom.uid import UID

from node.job import Output

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
# One of these must do for images and documents; results are written as the first.
NATIVE_SYNTAXES: tuple[UID, ...] = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
# Of images only, and only asked for by the probe: whether the peer would take them.
COMPRESSED_SYNTAXES: tuple[UID, ...] = (uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless)
IMAGE_OUTPUTS: frozenset[Output] = frozenset({"derived", "capture"})


def proposed(output: Output) -> list[tuple[UID, UID]]:
    """Pairs of SOP class and transfer syntax that a probe asks for."""
    syntaxes = NATIVE_SYNTAXES + (COMPRESSED_SYNTAXES if output in IMAGE_OUTPUTS else ())
    return [(sop_class, syntax) for sop_class in OUTPUT_CLASSES[output] for syntax in syntaxes]
