"""The codes of a result's structured objects, each with where it is defined."""

from highdicom.sr.coding import CodedConcept

ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")  # CID 7162
ABNORMAL_STRUCTURE = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
SALIENCY = CodedConcept("130404", "DCM", "Saliency")  # CID 7180
Z_SCORE = CodedConcept("121416", "DCM", "Z-Score of measurement")  # CID 221
MAXIMUM = CodedConcept("56851009", "SCT", "Maximum")  # CID 3488
AREA = CodedConcept("42798000", "SCT", "Area")  # CID 7470
VOLUME = CodedConcept("118565006", "SCT", "Volume")  # CID 7468
NO_UNITS = CodedConcept("1", "UCUM", "no units")
MM2 = CodedConcept("mm2", "UCUM", "square millimeter")
MM3 = CodedConcept("mm3", "UCUM", "cubic millimeter")
MEASUREMENT_REPORT = CodedConcept("126000", "DCM", "Imaging Measurement Report")  # CID 7021
DEVICE = CodedConcept("121007", "DCM", "Device")  # CID 270
OF_INTEREST = CodedConcept("113000", "DCM", "Of Interest")  # CID 7010
# CID 100, by Modality
PROCEDURES = {
    "CT": CodedConcept("25045-6", "LN", "CT unspecified body region"),
    "MR": CodedConcept("25056-3", "LN", "MRI unspecified body region"),
    "PT": CodedConcept("44136-0", "LN", "PET unspecified body region"),
    "CR": CodedConcept("43468-8", "LN", "XR unspecified body region"),
    "DX": CodedConcept("43468-8", "LN", "XR unspecified body region"),
}
IMAGING_PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")
