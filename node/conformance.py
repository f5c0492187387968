"""The DICOM conformance statement, in the order of PS3.2 Annex N, made of the tables that the code runs on.

`deploy/conformance.md` is this text; a test holds the two together. Only what no table of the code
knows is written out here.
"""

import ssl
from collections.abc import Callable, Iterable, Sequence

from node import __version__
from node import conformance_web as web
from node.config import Deliver, DICOMweb, Node, Peer, Receive
from node.dimse import contexts, outputs, tls
from node.dimse.commitment import WELL_KNOWN_INSTANCE
from node.dimse.contexts import STORAGE_CLASSES, STORAGE_COMMITMENT, STORAGE_SYNTAXES, VERIFICATION
from node.dimse.negotiation import APPLICATION_CONTEXT
from node.dimse.outcome import outcomes
from node.dimse.scu import MAX_CONTEXTS, STUDY_ROOT_FIND
from node.dimse.status import MEANINGS, REJECTIONS
from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.markdown import prose as _prose
from node.markdown import table as _table

# Private elements of a source that its result keeps: creator, group, what they hold.
PRIVATE_KEPT: tuple[tuple[str, str, str], ...] = (
    ("GEMS_PETD_01", "0009", "times of scan, administration and measurement, for SUV"),
    ("Philips PET Private Group", "7053", "SUV and activity scale factors"),
    ("SIEMENS MR HEADER", "0019", "b value, direction, b matrix"),
    ("GEMS_PARM_01", "0043", "b value"),
)


def statement() -> str:
    """The statement as Markdown."""
    sections: Sequence[tuple[str, Callable[[], Iterable[str]]]] = (
        ("Conformance statement overview", _overview),
        ("Table of contents", lambda: _contents([title for title, _ in sections])),
        ("Introduction", _introduction),
        ("Implementation model", _model),
        ("Service and interoperability description", _services),
        ("Configuration", _configuration),
        ("Network communication details", _network),
        ("Security", _security),
        ("Annex A: SOP instances that are created", _created),
        ("Annex B: private attributes", _private),
    )
    lines = [f"# DICOM conformance statement of aenode {__version__}", ""]
    lines += ["Made by `aenode conformance`; the order is that of PS3.2 Annex N.", ""]
    for number, (title, body) in enumerate(sections, start=1):
        lines += [f"## {_heading(number, title)}", "", *body(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _heading(number: int, title: str) -> str:
    return title if title.startswith("Annex") else f"{number} {title}"


def _contents(titles: Sequence[str]) -> list[str]:
    return [f"- {_heading(number, title)}" for number, title in enumerate(titles, start=1)]


def _overview() -> Iterable[str]:
    yield from _prose(
        "aenode receives series over the network, makes denoised series and marks of what is unusual of",
        "them, and stores these results at archives, in the study of their source.",
    )
    yield ""
    yield from _table(
        ("service", "SCU", "SCP"),
        [
            ("Verification", "yes", "yes"),
            (f"Storage, {len(STORAGE_CLASSES)} SOP classes of images", "no", "yes"),
            (f"Storage of results, {len(set(_sent()))} SOP classes", "yes", "no"),
            ("Storage commitment, push model", "yes", "no"),
            ("Query, study root", "yes", "no"),
            ("STOW-RS", "as user agent", "as origin server"),
            ("QIDO-RS", "as user agent", "no"),
        ],
    )
    yield from _prose(
        "Storage media and modality worklist are not supported.",
    )


def _introduction() -> Iterable[str]:
    yield from _prose(
        "For those who connect aenode with modalities and archives. It is to be read together with the",
        "DICOM standard. A comparison of two statements shows whether two systems can talk; whether they",
        "do what is wanted together has to be tried: `aenode probe` does it for an archive. Results are",
        "not for primary diagnosis.",
    )


def _model() -> Iterable[str]:
    yield from _prose(
        "One Application Entity, with one title, is acceptor and requestor:",
    )
    yield ""
    yield "```"
    yield "modality, PACS ──STOW-RS──┐"
    yield "modality, PACS ──C-STORE──▶ receiver → spool → rules → workers → outbox ──C-STORE──▶ archive"
    yield "                                │                                  ├──N-ACTION──▶ archive"
    yield "archive ──N-EVENT-REPORT────────┘                                  └──C-FIND────▶ archive, source"
    yield "```"
    yield ""
    yield from _prose(
        "The receiver answers C-STORE and STOW-RS with success when the instance is durable on disk. A",
        "series counts as whole when nothing more has come for a while, or when a C-FIND at its source",
        "says so. Rules choose what is made of it and where that goes. A result is sent until the archive",
        "has taken it or refused it for good, and is then proven by storage commitment or C-FIND, where the",
        "peer's settings ask for that.",
    )


def _sent() -> list[str]:
    return [str(uid) for classes in outputs.OUTPUT_CLASSES.values() for uid in classes]


def _services() -> Iterable[str]:
    yield "### Verification"
    yield ""
    syntaxes = ", ".join(uid.name for uid in contexts.VERIFICATION_SYNTAXES)
    yield from _prose(
        f"As SCP and SCU ({VERIFICATION}), {syntaxes}. It is answered whatever else is down.",
    )
    yield ""
    yield "### Storage as SCP"
    yield ""
    yield from _table(
        ("SOP class", "UID", "family"), [(c.uid.name, c.uid, c.family) for c in STORAGE_CLASSES]
    )
    yield from _prose(
        "Each in these transfer syntaxes. Of several in one presentation context the first of this list",
        "is accepted.",
    )
    yield ""
    yield from _table(
        ("transfer syntax", "UID", "may be lossy"),
        [(s.uid.name, s.uid, "yes" if s.lossy else "no") for s in STORAGE_SYNTAXES],
    )
    yield from _prose(
        "Conformance level 2 (full): all attributes are kept, as the bytes that came, private ones",
        "included. Nothing is coerced. An instance that comes again unchanged is answered with success",
        "and not kept twice.",
    )
    yield ""
    yield from _table(
        ("status", "meaning", "clause"),
        [(f"0x{status:04X}", meaning.sentence, meaning.clause) for status, meaning in MEANINGS.items()],
    )
    yield "### Storage as SCU"
    yield ""
    yield from _table(
        ("output", "SOP class", "UID"),
        [(output, uid.name, uid) for output, classes in outputs.OUTPUT_CLASSES.items() for uid in classes],
    )
    native = " or ".join(uid.name for uid in outputs.NATIVE_SYNTAXES)
    yield from _prose(
        f"Results are written in {outputs.NATIVE_SYNTAXES[0].name} and sent in {native}. `aenode send` sends",
        "any file in the transfer syntax that it has. Statuses of the peer mean:",
    )
    yield ""
    yield from _table(("status", "outcome", "meaning"), outcomes())
    yield from _prose(
        "RETRY is tried again with growing waits, REFUSED is not.",
    )
    yield ""
    yield "### Storage commitment as SCU"
    yield ""
    yield from _prose(
        f"Push model ({STORAGE_COMMITMENT}, instance {WELL_KNOWN_INSTANCE}). N-ACTION is sent after",
        "storing, to",
        'peers whose setting is `prove = "commitment"`. The report is taken on the same association or on',
        "one that the archive opens, with the roles reversed, of the AE title that was asked only.",
        "Instances that it does not commit itself to are sent again.",
    )
    yield ""
    yield "### Query as SCU"
    yield ""
    yield from _prose(
        f"Study root ({STUDY_ROOT_FIND}), Implicit VR Little Endian.",
    )
    yield ""
    yield from _table(
        ("level", "keys", "asked of"),
        [
            (
                "SERIES",
                "StudyInstanceUID, SeriesInstanceUID, NumberOfSeriesRelatedInstances",
                "a series' source",
            ),
            ("IMAGE", "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID", "archives, as proof"),
        ],
    )
    yield "### DICOMweb as user agent"
    yield ""
    yield from _prose(
        "To peers with a DICOMweb URL. Bearer token and client certificate by setting.",
        "FailureReason and WarningReason are judged like the statuses above.",
    )
    yield ""
    yield from _table(
        ("service", "request", "media type"),
        [
            ("STOW-RS", "POST {s}/studies, one instance each", 'multipart/related; type="application/dicom"'),
            ("QIDO-RS", "GET {s}/studies/{study}/series, counts", "application/dicom+json"),
            ("QIDO-RS", "GET {s}/studies/{study}/series/{series}/instances", "application/dicom+json"),
        ],
    )
    yield from web.origin_server()


def _configuration() -> Iterable[str]:
    node, receive, deliver = Node(), Receive(), Deliver()
    yield from _prose(
        "All of it stands in `config.toml`. The settings that matter to a peer:",
    )
    yield ""
    yield from _table(
        ("setting", "default", "meaning"),
        [
            ("node.ae_title", node.ae_title, "AE title, as acceptor and requestor"),
            ("node.bind", node.bind, "address and port"),
            ("node.tls.bind", "not set", "port of TLS; DICOM's own is 2762"),
            (
                "receive.accept_unknown_peers",
                str(receive.accept_unknown_peers).lower(),
                "any calling AE title",
            ),
            ("dicomweb.bind", "not set", "address and port of STOW-RS"),
            ("dicomweb.max_instances", DICOMweb().max_instances, "in one STOW-RS request"),
            ("receive.max_associations", receive.max_associations, "as acceptor, for each process"),
            ("receive.max_pdu", receive.max_pdu, "longest PDU that is taken, bytes"),
            ("receive.acse_timeout_seconds", f"{receive.acse_timeout_seconds:g}", "for the request"),
            ("receive.idle_timeout_seconds", f"{receive.idle_timeout_seconds:g}", "between messages"),
            (
                "receive.dimse_timeout_seconds",
                f"{receive.dimse_timeout_seconds:g}",
                "for a message to be whole",
            ),
            ("deliver.batch", deliver.batch, "instances in an association as requestor"),
            ("deliver.timeout_seconds", f"{deliver.timeout_seconds:g}", "connection, negotiation, answers"),
            ("peers.associations", Peer.model_fields["associations"].default, "at once, to a peer"),
        ],
    )
    yield from _prose(
        "Peers are known by AE title, or over DICOMweb by token or certificate; results go to the host and",
        "port, or the URL, of their settings.",
    )


def _network() -> Iterable[str]:
    yield from _table(
        ("", ""),
        [
            ("application context", APPLICATION_CONTEXT),
            ("implementation class UID", IMPLEMENTATION_CLASS_UID),
            ("implementation version name", IMPLEMENTATION_VERSION_NAME),
            ("asynchronous operations", "not supported: one outstanding operation"),
            ("presentation contexts as requestor", f"at most {MAX_CONTEXTS} in an association"),
            ("extended negotiation", "role selection for storage commitment only"),
            ("IP", "4 and 6"),
        ],
    )
    yield from _prose(
        "An association is rejected as follows (PS3.8 table 9-21).",
    )
    yield ""
    yield from _table(
        ("result", "source", "reason", "why"),
        [(f"{r.result:d} ({r.result.name.lower()})", r.source, r.reason, r.sentence) for r in REJECTIONS],
    )
    yield from _prose(
        "As requestor, a transient rejection is tried again with growing waits; a permanent one is not.",
    )


def _security() -> Iterable[str]:
    yield "### Secure transport"
    yield ""
    yield from _prose(
        "BCP 195 TLS profiles of PS3.15 B, the non-downgrading and the extended one included, as acceptor",
        "and",
        f"requestor: TLS {tls.MINIMUM.name.removeprefix('TLSv').replace('_', '.')} or newer, with",
        "these suites:",
    )
    yield ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(tls.CIPHERS)
    yield from sorted(f"- {suite['name']} ({suite['protocol']})" for suite in context.get_ciphers())
    yield ""
    yield from _prose(
        "An acceptor asks for the peer's certificate unless `require_client_certificate` is false; a",
        "requestor always verifies it, with the name unless `check_name` is false. Without TLS set up,",
        "connections are in the clear.",
    )
    yield ""
    yield "### Association level"
    yield ""
    yield from _prose(
        "The called AE title must be ours; the calling one must be a peer of the settings, unless",
        "`receive.accept_unknown_peers` is set. Digital signatures are kept in what is received, and",
        "neither verified nor made.",
    )
    yield ""
    yield "### DICOMweb access"
    yield ""
    yield from web.access()
    yield ""
    yield "### Audit trail"
    yield ""
    yield from _prose(
        "Messages of PS3.15 A.5 about what was received, decided and returned, in a file of the data folder,",
        "and by setting to a syslog server over TLS (RFC 5425).",
    )


def _created() -> Iterable[str]:
    yield from _prose(
        "The classes of section 5, storage as SCU. Results keep the study, patient and frame of reference",
        "of their source, and get a series of their own. SOPInstanceUIDs are made from the source and the",
        "job, so that the same work gives the same UIDs. A derived image has ImageType DERIVED, its",
        "source in SourceImageSequence, and the model in ContributingEquipmentSequence. Text is read in",
        "the source's character set, with the code extensions of PS3.3 C.12.1.1.2, and written in UTF-8",
        "(ISO_IR 192).",
    )


def _private() -> Iterable[str]:
    yield from _prose(
        "None is defined. These of a source are kept in its derived series:",
    )
    yield ""
    yield from _table(("private creator", "group", "what they hold"), PRIVATE_KEPT)
