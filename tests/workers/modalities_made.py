"""Small objects of the other modalities, made here: enhanced and 4-D MR, PET, NM, ultrasound, X-ray."""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from tests import series as made

PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation")
_PLANE = (*PLACE, "FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition")


def _as(ds: FileDataset, sop_class: str, modality: str, drop: Sequence[str] = ()) -> FileDataset:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.Modality = modality
    for keyword in (
        "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTime",
        "RepetitionTime", "EchoTrainLength", "MagneticFieldStrength", "KVP", "ConvolutionKernel",
        "RescaleType", *drop,
    ):  # fmt: skip
        ds.pop(keyword, None)
    return ds


def enhanced_mr(echoes: int = 1, slices: int = 4, size: int = 32) -> FileDataset:
    """Frames of several echoes, descending and interleaved, with a rescale of their own."""
    images = made.series(slices, size, modality="MR")
    slices_stored = [image.pixel_array for image in images]
    ds = _as(images[0], EnhancedMRImageStorage, "MR", [*PLACE, "WindowCenter", "WindowWidth"])
    slope, intercept = ds.RescaleSlope, ds.RescaleIntercept
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.ContentQualification, ds.ApplicableSafetyStandardAgency = "RESEARCH", "IEC"
    ds.LossyImageCompression, ds.PresentationLUTShape, ds.BurnedInAnnotation = "00", "IDENTITY", "NO"
    organization, place_index, echo_index = Dataset(), Dataset(), Dataset()
    organization.DimensionOrganizationUID = made.uid("dimensions")
    ds.DimensionOrganizationSequence = [organization]
    for index, (pointer, group_pointer) in (
        (place_index, (0x00200032, 0x00209113)),
        (echo_index, (0x00189082, 0x00189114)),
    ):
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, group_pointer
    ds.DimensionIndexSequence = [place_index, echo_index]
    ds.NumberOfFrames = echoes * slices
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = (
        "MONOCHROME", "VOLUME", "NONE",
    )  # fmt: skip
    ds.ComplexImageComponent, ds.AcquisitionContrast = "MAGNITUDE", "UNKNOWN"
    measures, orientation, transformation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.8], 2
    orientation.ImageOrientationPatient = list(made.AXIAL)
    transformation.RescaleSlope, transformation.RescaleIntercept = slope, intercept
    transformation.RescaleType = "US"
    kind = Dataset()
    kind.FrameType, kind.PixelPresentation = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"], "MONOCHROME"
    kind.VolumetricProperties, kind.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    kind.ComplexImageComponent, kind.AcquisitionContrast = "MAGNITUDE", "UNKNOWN"
    anatomy, region = Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "816094009", "SCT", "Chest"
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [region]
    shared = Dataset()
    shared.FrameAnatomySequence = [anatomy]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence, shared.MRImageFrameTypeSequence = [transformation], [kind]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups, planes = [], []
    for number in reversed(range(slices)):
        for echo in range(echoes):
            group, position, content, timing = Dataset(), Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [-100.0, -100.0, (number + 1) * 2.0]
            content.DimensionIndexValues = [number + 1, echo + 1]
            timing.EffectiveEchoTime = 10.0 * (echo + 1)
            group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
            group.MREchoSequence = [timing]
            groups.append(group)
            planes.append(slices_stored[number] + 100 * echo)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.PixelData = np.stack(planes).astype("<i2").tobytes()
    return ds


def pet(slices: int = 3, size: int = 32) -> list[FileDataset]:
    """Slices with a slope each, and what SUV needs."""
    images = []
    for number, plane in enumerate(made.body(slices, size), start=1):
        slope = 0.5 * number
        ds = made.image(number, np.maximum(plane + 1000, 0), modality="MR", slope=slope, intercept=0.0)
        _as(ds, PositronEmissionTomographyImageStorage, "PT")
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.Units, ds.CountsSource, ds.SeriesType = "BQML", "EMISSION", ["STATIC", "IMAGE"]
        ds.DecayCorrection, ds.CorrectedImage = "START", ["DECY", "ATTN"]
        ds.CollimatorType, ds.ImageIndex, ds.NumberOfSlices = "NONE", number, slices
        ds.FrameReferenceTime, ds.ActualFrameDuration, ds.DecayFactor = 1000, 60000, 1.1
        ds.PatientWeight = 70
        drug = Dataset()
        drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
        drug.RadiopharmaceuticalStartTime = "090000"
        ds.RadiopharmaceuticalInformationSequence = [drug]
        isotope = Dataset()
        isotope.CodeValue, isotope.CodingSchemeDesignator, isotope.CodeMeaning = "77004003", "SCT", "18F"
        drug.RadionuclideCodeSequence = [isotope]
        del ds.PatientPosition  # these stand for it
        ds.PatientOrientationCodeSequence, ds.PatientGantryRelationshipCodeSequence = [], []
        images.append(ds)
    return images


def ultrasound(frames: int = 3, rows: int = 24, columns: int = 40) -> FileDataset:
    """A colour clip with a calibrated region."""
    ds = _as(made.series(1, 32)[0], UltrasoundMultiFrameImageStorage, "US", _PLANE)
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "AcquisitionNumber"):
        ds.pop(keyword, None)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.FrameTime = rows, columns, frames, 40
    ds.FrameIncrementPointer = 0x00181063
    ds.PatientOrientation, ds.LossyImageCompression = "", "00"
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = columns - 1, rows - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.05, 0.04
    ds.SequenceOfUltrasoundRegions = [region]
    rgb = np.random.default_rng(5).integers(20, 220, (frames, rows, columns, 3))
    ds.PixelData = rgb.astype(np.uint8).tobytes()
    return ds


def radiograph(*, digital: bool = True, size: tuple[int, int] = (48, 40)) -> FileDataset:
    """A MONOCHROME1 chest with 10 of 16 bits: DX for presentation, or CR."""
    ds = made.series(1, 32)[0]
    kind = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    _as(ds, kind, "DX" if digital else "CR", _PLANE)
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""] if digital else ["ORIGINAL", "PRIMARY"]
    ds.PhotometricInterpretation, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = "MONOCHROME1", 10, 9, 0
    ds.Rows, ds.Columns = size
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "US"
    ds.WindowCenter, ds.WindowWidth = 512, 1024
    ds.PatientOrientation, ds.ImagerPixelSpacing, ds.ViewPosition = ["L", "F"], [0.2, 0.2], "PA"
    if digital:
        ds.PresentationIntentType, ds.PositionerType = "FOR PRESENTATION", ""
        ds.PresentationLUTShape, ds.PixelIntensityRelationship = "INVERSE", "LOG"
        ds.PixelIntensityRelationshipSign, ds.ImageLaterality = 1, "U"
        ds.LossyImageCompression, ds.BurnedInAnnotation = "00", "NO"
        ds.DetectorType, ds.AcquisitionContextSequence = "DIRECT", []
        region = Dataset()
        region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "816094009", "SCT", "Chest"
        ds.AnatomicRegionSequence, ds.RequestAttributesSequence = [region], []
    words = np.random.default_rng(6).integers(100, 900, size)
    ds.PixelData = words.astype("<u2").tobytes()
    return ds


def mammogram() -> FileDataset:
    """A cranio-caudal view with padding around the breast."""
    ds = radiograph()
    _as(ds, DigitalMammographyXRayImageStorageForPresentation, "MG", ["ViewPosition"])
    ds.PhotometricInterpretation, ds.PresentationLUTShape = "MONOCHROME2", "IDENTITY"
    ds.RescaleType = "US"
    ds.PositionerType, ds.ImageLaterality, ds.BodyPartExamined = "MAMMOGRAPHIC", "L", "BREAST"
    ds.PixelPaddingValue, ds.OrganExposed, ds.BreastImplantPresent = 0, "BREAST", "NO"
    ds.ViewCodeSequence = [code("399162004", "cranio-caudal")]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.AnatomicRegionSequence = [code("76752008", "Breast")]
    words = ds.pixel_array.copy()
    words[:, :9] = 0
    ds.PixelData = words.astype("<u2").tobytes()
    return ds


def angiogram(frames: int = 4, *, fluoroscopy: bool = False, size: int = 32) -> FileDataset:
    """A cine run of one plane, or one exposure where `frames` is 1."""
    kind = XRayRadiofluoroscopicImageStorage if fluoroscopy else XRayAngiographicImageStorage
    ds = _as(made.series(1, 32)[0], kind, "RF" if fluoroscopy else "XA", _PLANE)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.Rows = ds.Columns = size
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.WindowCenter, ds.WindowWidth, ds.KVP = 2048, 4096, 80
    ds.PixelIntensityRelationship, ds.RadiationSetting, ds.LossyImageCompression = "LIN", "GR", "00"
    ds.ExposureTime, ds.XRayTubeCurrent, ds.PatientOrientation = 8, 500, ""
    ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle = 30, 0
    ds.PositionerMotion, ds.ImagerPixelSpacing = "STATIC", [0.3, 0.3]
    if frames > 1:
        ds.NumberOfFrames, ds.FrameTime, ds.FrameIncrementPointer = frames, 66.7, 0x00181063
    words = np.random.default_rng(7).integers(500, 3500, (frames, size, size))
    ds.PixelData = words.astype("<u2").tobytes()
    return ds


def nuclear(kind: str = "STATIC", windows: int = 2, detectors: int = 2, running: int = 3) -> FileDataset:
    """Counts in frames: of energy windows and detectors (STATIC), or slices that descend (RECON TOMO)."""
    ds = _as(made.series(1, 32)[0], NuclearMedicineImageStorage, "NM", PLACE)
    for keyword in ("RescaleSlope", "RescaleIntercept", "PatientPosition"):
        ds.pop(keyword, None)
    ds.ImageType = ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 0
    ds.PixelSpacing, ds.WindowCenter, ds.WindowWidth = [4.0, 4.0], 50, 100
    ds.SliceThickness, ds.SpacingBetweenSlices = 4, -4
    ds.PatientOrientationCodeSequence, ds.PatientGantryRelationshipCodeSequence = [], []
    ds.EnergyWindowInformationSequence, ds.DetectorInformationSequence = [], []
    ds.RadiopharmaceuticalInformationSequence = []
    ds.CountsAccumulated, ds.LossyImageCompression = 100000, "00"
    places = [
        (window, detector, number)
        for number in range(running, 0, -1)
        for window in range(1, windows + 1)
        for detector in range(1, detectors + 1)
    ]
    ds.NumberOfFrames, ds.NumberOfEnergyWindows, ds.NumberOfDetectors = len(places), windows, detectors
    if kind == "RECON TOMO":
        ds.SliceVector, ds.NumberOfSlices = [place[2] for place in places], running
        ds.FrameIncrementPointer, ds.NumberOfRotations = 0x00540080, 1
    else:
        ds.ActualFrameDuration = 1000
        ds.EnergyWindowVector = [place[0] for place in places]
        ds.DetectorVector = [place[1] for place in places]
        ds.FrameIncrementPointer = [0x00540010, 0x00540020]
    means = np.array([10 * window + detector for window, detector, _ in places])
    words = np.random.default_rng(8).poisson(means[:, None, None], (len(places), 32, 32))
    ds.Rows = ds.Columns = 32
    ds.PixelData = words.astype("<u2").tobytes()
    return ds


def code(value: str, meaning: str) -> Dataset:
    """An item of a code sequence in SNOMED CT."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def echoes(count: int = 2, slices: int = 3, size: int = 32) -> list[FileDataset]:
    """A classic MR series with several echoes in each place."""
    images = []
    for echo in range(count):
        for ds in made.series(slices, size, seed=echo, modality="MR"):
            ds.EchoTime, ds.EchoNumbers = 10 * (echo + 1), echo + 1
            ds.SOPInstanceUID = made.uid("echo", echo, ds.InstanceNumber)
            ds.InstanceNumber = int(ds.InstanceNumber) + echo * slices
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            images.append(ds)
    return images
