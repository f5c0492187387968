"""The SOP classes that are read, and what a file of each is: a slice, a stack of frames, or flat pictures."""

from dataclasses import dataclass

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedCTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a SOP class before its header is read."""

    modality: str
    enhanced: bool = False  # frames with functional groups, each with its own place
    flat: bool = False  # no place in the patient
    frames: bool = False  # may hold several


KINDS: dict[UID, Kind] = {
    CTImageStorage: Kind("CT"),
    MRImageStorage: Kind("MR"),
    PositronEmissionTomographyImageStorage: Kind("PT"),
    EnhancedCTImageStorage: Kind("CT", enhanced=True, frames=True),
    EnhancedMRImageStorage: Kind("MR", enhanced=True, frames=True),
    EnhancedPETImageStorage: Kind("PT", enhanced=True, frames=True),
    LegacyConvertedEnhancedCTImageStorage: Kind("CT", enhanced=True, frames=True),
    LegacyConvertedEnhancedMRImageStorage: Kind("MR", enhanced=True, frames=True),
    LegacyConvertedEnhancedPETImageStorage: Kind("PT", enhanced=True, frames=True),
    UltrasoundImageStorage: Kind("US", flat=True),
    UltrasoundMultiFrameImageStorage: Kind("US", flat=True, frames=True),
    ComputedRadiographyImageStorage: Kind("CR", flat=True),
    DigitalXRayImageStorageForPresentation: Kind("DX", flat=True),
    DigitalMammographyXRayImageStorageForPresentation: Kind("MG", flat=True),
    XRayAngiographicImageStorage: Kind("XA", flat=True, frames=True),
    XRayRadiofluoroscopicImageStorage: Kind("RF", flat=True, frames=True),
    NuclearMedicineImageStorage: Kind("NM", flat=True, frames=True),
}

_RAW = "raw detector data; only images for presentation are read, what is shown is made from them"
_CAPTURE = (
    "a picture of a screen or a film, whose values have no known unit and whose noise is not a detector's; "
    "send the images that it shows"
)
# Why a class that one might expect is not read.
REFUSED: dict[UID, str] = {
    DigitalXRayImageStorageForProcessing: _RAW,
    DigitalMammographyXRayImageStorageForProcessing: _RAW,
    SecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameSingleBitSecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameTrueColorSecondaryCaptureImageStorage: _CAPTURE,
    UID("1.2.840.10008.5.1.4.1.1.3"): "its class was retired in 1994",
    UID("1.2.840.10008.5.1.4.1.1.5"): "its class was retired in 1994",
    UID("1.2.840.10008.5.1.4.1.1.6"): "its class was retired in 1994",
    UID("1.2.840.10008.5.1.4.1.1.12.3"): "its class is retired",
    EnhancedMRColorImageStorage: "colour, a picture of a result and no measurement",
}
READ = "CT, MR, PET, NM, US, XA, RF, and CR, DX and MG (for presentation) are"
