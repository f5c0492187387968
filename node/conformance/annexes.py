"""The annexes: what is in the objects that we create."""

from node.conformance.sections import Section, prose, table
from node.dimse import outputs

# Private elements of a source that its result keeps: creator, group, what they hold.
PRIVATE_KEPT: tuple[tuple[str, str, str], ...] = (
    ("GEMS_PETD_01", "0009", "times of scan, administration and measurement, for SUV"),
    ("Philips PET Private Group", "7053", "SUV and activity scale factors"),
    ("SIEMENS MR HEADER", "0019", "b value, direction, b matrix"),
    ("GEMS_PARM_01", "0043", "b value"),
)

# Code, coding scheme, meaning, where it stands in what we create.
CODES: tuple[tuple[str, str, str, str], ...] = (
    ("126000", "DCM", "Imaging Measurement Report", "title of reports"),
    ("123110", "DCM", "Artificial Intelligence", "algorithm family"),
    ("121007", "DCM", "Device", "observer"),
    ("49755003", "SCT", "Morphologically Abnormal Structure", "findings and segments"),
    ("121416", "DCM", "Z-Score of measurement", "measurement"),
    ("56851009", "SCT", "Maximum", "derivation of a measurement"),
    ("42798000", "SCT", "Area", "measurement"),
    ("118565006", "SCT", "Volume", "measurement"),
    ("1", "UCUM", "no units", "unit"),
    ("mm2", "UCUM", "square millimeter", "unit"),
    ("mm3", "UCUM", "cubic millimeter", "unit"),
    ("25045-6", "LN", "CT unspecified body region", "procedure reported"),
    ("25056-3", "LN", "MRI unspecified body region", "procedure reported"),
    ("44136-0", "LN", "PET unspecified body region", "procedure reported"),
    ("43468-8", "LN", "XR unspecified body region", "procedure reported"),
    ("363679005", "SCT", "Imaging procedure", "procedure reported, of other modalities"),
    ("130404", "DCM", "Saliency", "quantity of parametric maps"),
    ("113000", "DCM", "Of Interest", "title of key object selections"),
    ("113001", "DCM", "Rejected for Quality Reasons", "title of rejection notes"),
    ("113012", "DCM", "Key Object Description", "text of rejection notes"),
    ("109102", "DCM", "Processing Equipment", "ContributingEquipmentSequence"),
)


def annexes() -> list[tuple[str, Section]]:
    """Each with its number, which begins with A."""
    sections = (
        Section("Information Object Definitions (IODs)", (), [_shared(), *_created()]),
        Section("Structured Report Content Encoding", _reports()),
        Section("Security Details", _security()),
        Section("Mapping of Attributes", _mapping()),
        Section("Code Set Usage", _codes()),
    )
    return [(f"A.{letter}", section) for letter, section in zip("ABCDE", sections, strict=True)]


def _shared() -> Section:
    return Section(
        "Information Shared Across Multiple IODs",
        (),
        [
            Section(
                "Common Modules",
                prose(
                    "Results keep the study, patient and frame of reference of their source, and get a",
                    "series of their own. SOP Instance UIDs are made from the source and the job, so that",
                    "the same work gives the same UIDs. ContributingEquipmentSequence names the model, its",
                    "version and the hash of its weights. Each object is checked against its IOD before it",
                    "leaves.",
                ),
            ),
            Section("Common Functional Group Macros", prose("Those of the source, where it is multi-frame.")),
            Section(
                "Common Private Modules",
                [
                    *prose("None is defined. These of a source are kept in its derived series:"),
                    *table(("private creator", "group", "what they hold"), PRIVATE_KEPT),
                ],
            ),
            Section("Coded Values", prose("See A.E.")),
        ],
    )


def _created() -> list[Section]:
    said = {
        "derived": "ImageType DERIVED, the source in SourceImageSequence, its bits, slope and intercept",
        "capture": "RGB, 8 bits, BurnedInAnnotation YES",
        "segmentation": "BINARY, a segment for each finding, with its tracking UID",
        "report": "TID 1500, see A.B",
        "parametric": "32-bit float, the score of each pixel",
        "presentation": "Outlines as graphic annotations",
        "keys": "TID 2010",
    }
    return [
        Section(f"Output {output}", prose(f"{', '.join(uid.name for uid in classes)}. {said[output]}."))
        for output, classes in outputs.OUTPUT_CLASSES.items()
    ]


def _reports() -> list[str]:
    return prose(
        "TID 1500 with one planar group (TID 1410) for each finding: an image region (SCOORD, a closed",
        "POLYLINE on one image), its tracking identifier and UID, which the segmentation shares, the",
        "algorithm (TID 4019), and measurements of score, area and volume.",
    )


def _security() -> list[str]:
    return prose(
        "Audit messages of PS3.15 A.5: DICOM Instances Transferred for what was received and returned, DICOM",
        "Instances Accessed for what was decided; in a file of the data folder, and by setting to a syslog",
        "server over TLS (RFC 5425). The patient is named by setting only.",
    )


def _mapping() -> list[str]:
    return prose("From the source series alone; there is no worklist and no procedure step.")


def _codes() -> list[str]:
    return table(
        ("code", "scheme", "meaning", "where"),
        CODES,
    )
