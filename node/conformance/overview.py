"""Sections 1, 3 and 4: what there is at a glance, for whom, and how the parts work together."""

from pydicom.uid import UID

from node import __version__
from node.conformance.sections import Section, prose, table, yes
from node.dimse import contexts, outputs
from node.sop_classes import IMAGE_CLASSES, STORAGE_CLASSES

_IMAGES = frozenset(sop_class.uid for sop_class in IMAGE_CLASSES)
_RECEIVED = {sop_class.uid: sop_class for sop_class in STORAGE_CLASSES}
_SENT = frozenset(uid for classes in outputs.OUTPUT_CLASSES.values() for uid in classes)


def overview() -> Section:
    """Section 1."""
    return Section(
        "Overview",
        prose(
            "aenode receives series over the network, makes denoised series and marks of what is unusual of",
            "them, and stores these results at archives, in the study of their source.",
        ),
        [
            Section(
                "Content and Transfer",
                _content(),
                [
                    Section(
                        "Structured Reporting Root Template IDs",
                        table(
                            ("template", "SOP class", "created by"),
                            [
                                ("TID 1500", UID(outputs.OUTPUT_CLASSES["report"][0]).name, "pipelines"),
                                (
                                    "TID 2010",
                                    UID(outputs.OUTPUT_CLASSES["keys"][0]).name,
                                    "pipelines; rejection notes of superseded results",
                                ),
                            ],
                        ),
                    )
                ],
            ),
            Section("DIMSE Services", _dimse()),
            Section("DICOM Web Services", _web()),
            Section("Media Services"),
            Section("Real-Time Video Service"),
            Section("De-Identification Profiles"),
            Section("Specific Character Sets", prose("All of PS3.3 C.12.1.1.2 are read; see 5.7.")),
        ],
    )


def _content() -> list[str]:
    def row(uid: UID) -> tuple[object, ...]:
        received, sent = _RECEIVED.get(uid), uid in _SENT
        taken = "" if received is None else "A" if received.pixels else "B"
        return (
            uid.name,
            uid,
            ("C" if uid in outputs.COMPRESSIBLE else "D") if sent else "",
            taken,
            yes(sent),
            "S" if sent else "",
            yes(uid in _IMAGES),
        )

    every = sorted(_RECEIVED.keys() | _SENT, key=lambda uid: [int(part) for part in uid.split(".")])
    kept = {
        "A": [s.uid for s in contexts.STORAGE_SYNTAXES],
        "B": [s.uid for s in contexts.STORAGE_SYNTAXES if not s.encapsulated],
        "C": [*outputs.NATIVE_SYNTAXES, *outputs.COMPRESSED_SYNTAXES],
        "D": [*outputs.NATIVE_SYNTAXES],
    }
    syntaxes = list(dict.fromkeys(uid for members in kept.values() for uid in members))
    lossy = {s.uid for s in contexts.STORAGE_SYNTAXES if s.lossy}
    return [
        *prose(
            "DIMSE columns name the Transfer Syntax Set, DICOM Web the role of user agent of the Store",
            "transaction; as origin server it takes what the SCP takes. Create: S, a Standard SOP Class.",
            "Process: rules choose what is made of it. What is",
            "not processed is accepted so that a study can be forwarded as a whole, kept and ignored.",
            "Nothing is displayed, and nothing is archived: instances are kept for their results' sake.",
        ),
        *table(("SOP class", "UID", "SCU", "SCP", "DICOM Web", "Create", "Process"), map(row, every)),
        *prose("The sets. SCP sets are in the order of preference within one presentation context."),
        *table(
            ("transfer syntax", "UID", *kept, "may be lossy"),
            [(uid.name, uid, *(yes(uid in kept[s]) for s in kept), yes(uid in lossy)) for uid in syntaxes],
        ),
    ]


def _dimse() -> list[str]:
    rows = [
        ("Verification", "Y", "Y"),
        ("Storage", "Y", "Y"),
        ("Storage Commitment, Push Model", "Y", "N"),
        ("Workflow Management", "N", "N"),
        ("Query/Retrieve: Study Root, C-FIND", "Y", "N"),
        ("Query/Retrieve: C-MOVE, C-GET", "N", "N"),
        ("Print Management", "N", "N"),
    ]
    return table(("service", "SCU", "SCP"), rows)


def _web() -> list[str]:
    rows = [
        ("Studies: Store (STOW-RS)", "Y", "Y"),
        ("Studies: Search (QIDO-RS)", "Y", "N"),
        ("Studies: Retrieve (WADO-RS)", "N", "N"),
        ("all others", "N", "N"),
    ]
    return table(("service", "user agent", "origin server"), rows)


def introduction() -> Section:
    """Section 3."""
    return Section(
        "Introduction",
        (),
        [
            Section("Revision History", prose(f"Version {__version__}; `CHANGELOG.md` says what changed.")),
            Section("Audience", prose("Those who connect aenode with modalities and archives.")),
            Section(
                "Remarks",
                prose(
                    "A comparison of two statements shows whether two systems can talk; whether they do",
                    "what is wanted together has to be tried: `aenode probe` does it for an archive.",
                    "Results are not for primary diagnosis.",
                ),
            ),
            Section(
                "Terms and Definitions",
                prose(
                    "Those of the DICOM standard. Rule: what is made of which series. Pipeline: a model",
                    "with its outputs. Result: what a pipeline made.",
                ),
            ),
            Section(
                "Abbreviations",
                prose(
                    "AE: Application Entity. SCU, SCP: Service Class User, Provider. UID: Unique Identifier."
                ),
            ),
            Section(
                "References", prose("NEMA PS3, the DICOM standard; its PS3.2 Annex N for this statement.")
            ),
        ],
    )


def implementation_model() -> Section:
    """Section 4."""
    flow = [
        "```",
        "modality, PACS ──STOW-RS──┐",
        "modality, PACS ──C-STORE──▶ receiver → spool → rules → workers → outbox ──C-STORE──▶ archive",
        "                                │                                  ├──N-ACTION──▶ archive",
        "archive ──N-EVENT-REPORT────────┘                                  └──C-FIND────▶ archive, source",
        "```",
        "",
    ]
    functions = prose(
        "The receiver answers C-STORE and Store (STOW-RS) with success when the instance is durable on",
        "disk. A series counts as whole when nothing more has come for a while, or when a C-FIND at its",
        "source says so. Rules",
        "choose what is made of it and where that goes. A result is sent until the archive has taken it or",
        "refused it for good, and is then proven by storage commitment or C-FIND, where the peer's settings",
        "ask for that.",
    )
    return Section(
        "Implementation Model",
        (),
        [
            Section(
                "Application Entities and Data Flow",
                [*prose("One Application Entity, with one title, is acceptor and requestor:"), *flow],
                [Section("Functional Definition of the aenode Application Entity", functions)],
            )
        ],
    )
