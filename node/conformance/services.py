"""Section 5: what each service does."""

from pydicom.uid import UID

from node.conformance.sections import Section, prose, table
from node.dimse import contexts, outputs
from node.dimse.commitment import WELL_KNOWN_INSTANCE
from node.dimse.contexts import STORAGE_COMMITMENT, VERIFICATION
from node.dimse.scu import STUDY_ROOT_FIND
from node.receive.stowing import METHODS, REQUEST_TYPE, RESPONSE_TYPE


def services() -> Section:
    """Section 5."""
    return Section(
        "Service and Interoperability Description",
        (),
        [
            Section("Mapping of Services to Application Entities", _mapping()),
            Section("DIMSE Services", (), _dimse()),
            Section("DICOM Web Services", (), _web()),
            Section("Media Services"),
            Section("Real-Time Video Service"),
            Section("Cross-Service Considerations", _between()),
            Section("Specific Character Sets", _character_sets()),
        ],
    )


def _mapping() -> list[str]:
    syntaxes = " and ".join(uid.name for uid in contexts.VERIFICATION_SYNTAXES)
    return prose(
        f"All are of the one Application Entity. Verification ({VERIFICATION}) is provided in {syntaxes},",
        "and answered whatever else is down; it is used to ask whether a peer is back after an outage.",
    )


def _dimse() -> list[Section]:
    return [
        Section("Basic Worklist Management Service"),
        Section("Modality Performed Procedure Step Service"),
        Section("Unified Worklist and Procedure Step Service"),
        Section("Instance Availability Notification Service"),
        Section("Storage Service", (), [_storing(), _receiving()]),
        Section("Storage Commitment Service", _commitment()),
        Section("Query/Retrieve Service", _query()),
        Section("Print Management Service"),
    ]


def _storing() -> Section:
    rows = [(output, uid.name) for output, classes in outputs.OUTPUT_CLASSES.items() for uid in classes]
    return Section(
        "SCU of the Storage SOP Classes",
        [
            *prose(
                "Results are sent as soon as their job is done, each kind in a series of its own in the",
                "study of its source. What a peer takes is asked by the presentation contexts of each",
                "association: an instance none of whose contexts is accepted is left out at that peer, and",
                "the others go on.",
            ),
            *table(("output", "SOP class"), rows),
            *prose("`aenode send` sends any file; one that is compressed goes in its own transfer syntax."),
        ],
        [Section("Transcoding of Transfer Syntaxes", _transcoding())],
    )


def _transcoding() -> list[str]:
    written = outputs.NATIVE_SYNTAXES[0]
    to = [*outputs.NATIVE_SYNTAXES[1:], *outputs.COMPRESSED_SYNTAXES]
    return [
        *prose(
            f"Results are written in {written.name}. From it, and from nothing else:",
        ),
        *table(
            (
                "to",
                "UID",
                " and ".join(sorted(outputs.IMAGE_OUTPUTS)),
                "others",
                "`transfer_syntax`",
            ),
            [
                (
                    uid.name,
                    uid,
                    "SUPPORTED",
                    "SUPPORTED" if uid in outputs.NATIVE_SYNTAXES else "NOT_SUPPORTED",
                    ", ".join(_settings_of(uid)),
                )
                for uid in to
            ],
        ),
        *prose(
            "Each transfer syntax is proposed in a presentation context of its own, and the first that is",
            "accepted is used: those that the peer's `transfer_syntax` asks for, then the uncompressed,",
            "then the others. Nothing is lost, and what is sent was decoded again and compared. RGB becomes",
            "YBR_RCT in JPEG 2000 and HTJ2K. HTJ2K needs the extra `htj2k`.",
        ),
    ]


def _settings_of(syntax: UID) -> list[str]:
    """The values of a peer's `transfer_syntax` that ask for a syntax."""
    return [f'"{name}"' for name, wanted in outputs.WANTED.items() if syntax in wanted]


def _receiving() -> Section:
    return Section(
        "SCP of the Storage SOP Classes",
        [
            *table(("", ""), [("Level of Conformance", 2), ("Level of Digital Signature Support", 3)]),
            *prose(
                "All attributes are kept, as the bytes that came, private ones included. Nothing is",
                "coerced. An instance that comes again unchanged is answered with success and not kept",
                "twice. Results of aenode itself, of any class, are known by ContributingEquipmentSequence",
                "or by their SOP Instance UID, kept, and ignored.",
            ),
        ],
    )


def _commitment() -> list[str]:
    return prose(
        f"As SCU, Push Model ({STORAGE_COMMITMENT}, instance {WELL_KNOWN_INSTANCE}). N-ACTION is sent after",
        'storing, to peers whose setting is `prove = "commitment"`. The report is taken on the same',
        "association or on one that the archive opens, with the roles reversed, of the AE title that was",
        "asked only. Instances that it does not commit itself to are sent again.",
    )


def _query() -> list[str]:
    return [
        *prose(f"As SCU of C-FIND, Study Root ({STUDY_ROOT_FIND}), in Implicit VR Little Endian."),
        *table(
            ("level", "keys", "asked of"),
            [
                (
                    "SERIES",
                    "StudyInstanceUID, SeriesInstanceUID, NumberOfSeriesRelatedInstances",
                    "a series' source",
                ),
                ("IMAGE", "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID", "archives, as proof"),
            ],
        ),
    ]


def _web() -> list[Section]:
    return [
        Section("URI Web Service"),
        Section("Studies Web Service", (), _studies()),
        Section("Worklist Web Service"),
        Section("Non-Patient Instance Web Service"),
        Section("Notification Web Service"),
        Section("Storage Commitment Web Service"),
        Section("Modality Scheduled Procedure Step Web Service"),
        Section("Modality Performed Procedure Step Web Service"),
    ]


def _studies() -> list[Section]:
    types = [
        ("Store, request", 'multipart/related; type="application/dicom"'),
        ("Store, answer", "application/dicom+json"),
        ("Search", "application/dicom+json"),
    ]
    searches = [
        ("{s}/studies/{study}/series", "how many instances a series' source has"),
        ("{s}/studies/{study}/series/{series}/instances", "whether an archive has what it accepted"),
    ]
    return [
        Section("Media Types", table(("transaction", "media type"), types)),
        Section("Retrieve"),
        Section(
            "Store",
            prose(
                "As user agent: POST {s}/studies, one instance each, to peers with a DICOMweb URL. A part",
                "whose pixels are encoded anew names its `transfer-syntax`; one that is refused with 415 or",
                "0xC122 goes uncompressed.",
            ),
            [Section("Origin Server", _origin_server())],
        ),
        Section("Search", table(("request", "asks"), searches)),
    ]


def _origin_server() -> list[str]:
    return [
        *prose(
            "Where `dicomweb.bind` is set: HTTP/1.1, with or without TLS, bodies with a length or chunked.",
            "SOP classes and transfer syntaxes are those of storage as SCP. A part is one DICOM file",
            "(PS3.10); its data set is kept as the bytes that came.",
        ),
        *table(
            ("request", "media type", "answer"),
            [
                ("POST {s}/studies", REQUEST_TYPE, RESPONSE_TYPE),
                ("POST {s}/studies/{study}", REQUEST_TYPE, RESPONSE_TYPE),
                ("OPTIONS {s}/studies", "none", f"Allow: {METHODS}"),
            ],
        ),
        *prose(
            "FailedSOPSequence and ReferencedSOPSequence name each instance; parts that name none are in",
            "OtherFailuresSequence. RetrieveURL is empty: nothing can be retrieved. A request counts as an",
            "association, has its limits, and the peer's AE title, or its name where it has none, as calling",
            "AE title.",
        ),
    ]


def _between() -> list[str]:
    return prose(
        "A result is proven by what its peer's `prove` names: storage commitment, else C-FIND, else Search.",
        "Only what is proven is removed by age, unless the settings say otherwise.",
    )


def _character_sets() -> list[str]:
    return prose(
        "Text is read in the source's character set, with the code extensions of PS3.3 C.12.1.1.2, and",
        "written in UTF-8 (ISO_IR 192). What is only kept is not converted. Queries have UIDs alone.",
    )
