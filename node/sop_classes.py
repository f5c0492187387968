"""The SOP classes of storage that we accept (PS3.4 B.5): images, and what a study holds beside them."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import uid
from pydicom.uid import UID


@dataclass(frozen=True, slots=True)
class SOPClass:
    """A SOP class that we accept, and the modality or use it is listed for."""

    uid: UID
    family: str
    pixels: bool = True  # whether it has Pixel Data


# What rules are asked about and workers read.
IMAGE_CLASSES: tuple[SOPClass, ...] = (
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
    SOPClass(uid.NuclearMedicineImageStorage, "NM"),
    SOPClass(uid.SecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameSingleBitSecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "SC"),
    SOPClass(uid.MultiFrameTrueColorSecondaryCaptureImageStorage, "SC"),
)

# What is kept and ignored: it comes along when a PACS forwards a study.
COMPANION_CLASSES: tuple[SOPClass, ...] = (
    SOPClass(uid.SegmentationStorage, "SEG"),
    SOPClass(uid.SurfaceSegmentationStorage, "SEG", pixels=False),
    SOPClass(uid.ParametricMapStorage, "PM"),
    SOPClass(uid.BasicTextSRStorage, "SR", pixels=False),
    SOPClass(uid.EnhancedSRStorage, "SR", pixels=False),
    SOPClass(uid.ComprehensiveSRStorage, "SR", pixels=False),
    SOPClass(uid.Comprehensive3DSRStorage, "SR", pixels=False),
    SOPClass(uid.MammographyCADSRStorage, "SR", pixels=False),
    SOPClass(uid.ChestCADSRStorage, "SR", pixels=False),
    SOPClass(uid.ColonCADSRStorage, "SR", pixels=False),
    SOPClass(uid.SimplifiedAdultEchoSRStorage, "SR", pixels=False),
    SOPClass(uid.AcquisitionContextSRStorage, "SR", pixels=False),
    SOPClass(uid.XRayRadiationDoseSRStorage, "SR", pixels=False),
    SOPClass(uid.EnhancedXRayRadiationDoseSRStorage, "SR", pixels=False),
    SOPClass(uid.RadiopharmaceuticalRadiationDoseSRStorage, "SR", pixels=False),
    SOPClass(uid.PatientRadiationDoseSRStorage, "SR", pixels=False),
    SOPClass(uid.KeyObjectSelectionDocumentStorage, "KO", pixels=False),
    SOPClass(uid.GrayscaleSoftcopyPresentationStateStorage, "PR", pixels=False),
    SOPClass(uid.ColorSoftcopyPresentationStateStorage, "PR", pixels=False),
    SOPClass(uid.PseudoColorSoftcopyPresentationStateStorage, "PR", pixels=False),
    SOPClass(uid.BlendingSoftcopyPresentationStateStorage, "PR", pixels=False),
    SOPClass(uid.AdvancedBlendingPresentationStateStorage, "PR", pixels=False),
    SOPClass(uid.XAXRFGrayscaleSoftcopyPresentationStateStorage, "PR", pixels=False),
    SOPClass(uid.SpatialRegistrationStorage, "REG", pixels=False),
    SOPClass(uid.DeformableSpatialRegistrationStorage, "REG", pixels=False),
    SOPClass(uid.SpatialFiducialsStorage, "FID", pixels=False),
    SOPClass(uid.RealWorldValueMappingStorage, "RWV", pixels=False),
    SOPClass(uid.EncapsulatedPDFStorage, "DOC", pixels=False),
    SOPClass(uid.EncapsulatedCDAStorage, "DOC", pixels=False),
    SOPClass(uid.RTStructureSetStorage, "RT", pixels=False),
    SOPClass(uid.RTPlanStorage, "RT", pixels=False),
    SOPClass(uid.RTDoseStorage, "RT"),
)

STORAGE_CLASSES = IMAGE_CLASSES + COMPANION_CLASSES
COMPANION_UIDS = frozenset(sop_class.uid for sop_class in COMPANION_CLASSES)


def companions_only(sop_classes: Iterable[str]) -> str:
    """The names of the classes where none of them is of images; else an empty text."""
    found = sorted({UID(one) for one in sop_classes})
    return ", ".join(one.name for one in found) if found and COMPANION_UIDS.issuperset(found) else ""
