"""Sections 6 and 7: settings, associations, statuses."""

from collections.abc import Iterable, Sequence

from node.config import Deliver, DICOMweb, Node, Peer, Receive
from node.conformance.sections import Section, prose, table
from node.dicomweb.store_response import STATUSES
from node.dimse.negotiation import APPLICATION_CONTEXT
from node.dimse.outcome import outcomes
from node.dimse.scu import MAX_CONTEXTS
from node.dimse.status import MEANINGS, REJECTIONS
from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def _settings(rows: Iterable[Sequence[object]]) -> list[str]:
    return table(("setting", "default", "meaning"), rows)


def configuration() -> Section:
    """Section 6."""
    return Section(
        "Configuration",
        prose("All of it stands in `config.toml`, which explains each setting. Those that matter to a peer:"),
        [
            Section("General Configuration Parameters", _settings(_general())),
            Section(
                "Configuration of DIMSE Services",
                (),
                [
                    Section("Basic Worklist Management Service"),
                    Section("Modality Performed Procedure Step Service"),
                    Section("Unified Worklist and Procedure Step Service"),
                    Section("Instance Availability Notification Service"),
                    Section("Storage Service", _settings(_storage())),
                    Section("Storage Commitment Service", _settings(_commitment())),
                    Section("Query/Retrieve Service", _settings(_query())),
                    Section("Print Management Service"),
                ],
            ),
            Section("Configuration of DICOM Web Services", _settings(_web())),
            Section("Configuration of Media Storage Service"),
            Section("Configuration of Real-Time Video Service"),
            Section("Configuration of Audit Trail - Syslog", _settings(_audit())),
        ],
    )


def _general() -> list[tuple[object, ...]]:
    node, receive, deliver = Node(), Receive(), Deliver()
    return [
        ("node.ae_title", node.ae_title, "AE title, as acceptor and requestor"),
        ("node.bind", node.bind, "address and port"),
        ("node.tls.bind", "not set", "port of TLS; DICOM's own is 2762"),
        ("receive.accept_unknown_peers", str(receive.accept_unknown_peers).lower(), "any calling AE title"),
        ("receive.max_associations", receive.max_associations, "as acceptor, for each process"),
        ("receive.max_pdu", receive.max_pdu, "longest PDU that is taken, bytes"),
        ("receive.acse_timeout_seconds", f"{receive.acse_timeout_seconds:g}", "for the request"),
        ("receive.idle_timeout_seconds", f"{receive.idle_timeout_seconds:g}", "between messages"),
        ("receive.dimse_timeout_seconds", f"{receive.dimse_timeout_seconds:g}", "for a message to be whole"),
        ("deliver.timeout_seconds", f"{deliver.timeout_seconds:g}", "connection, negotiation, answers"),
    ]


def _of_peer(name: str) -> object:
    default = Peer.model_fields[name].default
    return "not set" if default is None else str(default).lower() if isinstance(default, bool) else default


def _storage() -> list[tuple[object, ...]]:
    return [
        ("peers.ae_title, peers.address", "", "whom we know, and where results go"),
        ("peers.transfer_syntax", _of_peer("transfer_syntax"), "how images are encoded for a peer"),
        ("peers.associations", _of_peer("associations"), "at once, to a peer"),
        ("peers.max_associations, peers.quota", "not set", "what a sender may take up"),
        ("deliver.batch", Deliver().batch, "instances in an association as requestor"),
    ]


def _commitment() -> list[tuple[object, ...]]:
    wait = f"{Deliver().proof_wait_seconds:g}"
    return [
        ("peers.prove", _of_peer("prove"), '"commitment" asks for it'),
        ("deliver.proof_wait_seconds", wait, "for a report on the same association"),
    ]


def _query() -> list[tuple[object, ...]]:
    return [
        ("peers.prove", _of_peer("prove"), '"find" asks an archive'),
        ("peers.find", _of_peer("find"), "whether a source may be asked"),
    ]


def _web() -> list[tuple[object, ...]]:
    return [
        ("peers.dicomweb", _of_peer("dicomweb"), "the root of its services"),
        ("peers.token_file, peers.token_env", "not set", "where the bearer token comes from"),
        ("peers.tls", _of_peer("tls"), "certificates"),
        ("dicomweb.bind", "not set", "address and port of the origin server"),
        ("dicomweb.tls", "false", "HTTPS there; compulsory beyond the machine itself"),
        ("dicomweb.max_instances", DICOMweb().max_instances, "parts in one request"),
        ("peers.receive_token_file, peers.receive_token_env", "not set", "the token of a sender"),
        ("peers.client_certificate", "not set", "the certificate of a sender, by name or digest"),
    ]


def _audit() -> list[tuple[object, ...]]:
    return [
        ("audit.syslog", "not set", "host and port of a syslog server, over TLS"),
        ("audit.syslog_ca", "not set", "whose certificate it must have"),
    ]


def network() -> Section:
    """Section 7."""
    return Section(
        "Network and Media Communication Details",
        (),
        [
            Section("General", (), [Section("General Association Parameters", _parameters())]),
            Section("Specifications", (), [_entity()]),
            Section("Status Codes", (), [_failures(), _dimse_statuses(), _web_statuses()]),
        ],
    )


def _parameters() -> list[str]:
    return table(
        ("parameter", "value"),
        [
            ("Application Context Name", APPLICATION_CONTEXT),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Maximum PDU Length", f"{Receive().max_pdu} bytes, by setting"),
            ("Asynchronous operations", "not supported: one outstanding operation"),
            ("Presentation contexts as initiator", f"at most {MAX_CONTEXTS} in an association"),
            ("Extended negotiation", "role selection for storage commitment only"),
            ("IP", "4 and 6"),
        ],
    )


def _entity() -> Section:
    return Section(
        "aenode Application Entity",
        (),
        [
            Section(
                "Sequencing of Real-World Activities for aenode",
                prose(
                    "A series is received; its source is asked by C-FIND how much of it there is, where",
                    "that is allowed; results are stored; then they are asked for, over another",
                    "association.",
                ),
            ),
            Section("Association Parameters of aenode"),  # those of 7.1.1
            Section(
                "Association Initiation Policy",
                prose(
                    "For C-ECHO, C-STORE, N-ACTION and C-FIND, each over an association of its own kind.",
                    "Presentation contexts are those of what is to be sent, one for each transfer syntax. A",
                    "transient rejection is tried again with growing waits; a permanent one is not.",
                ),
            ),
            Section(
                "Association Acceptance Policy",
                [
                    *prose(
                        "The called AE title must be ours; the calling one must be a peer of the settings,",
                        "unless `receive.accept_unknown_peers` is set. Rejected is as follows (PS3.8 table",
                        "9-21).",
                    ),
                    *table(
                        ("result", "source", "reason", "why"),
                        [
                            (f"{r.result:d} ({r.result.name.lower()})", r.source, r.reason, r.sentence)
                            for r in REJECTIONS
                        ],
                    ),
                ],
            ),
        ],
    )


def _failures() -> Section:
    initiator = [
        ("Timeout", "the association is aborted; tried again with growing waits"),
        ("Association aborted", "what was not answered is tried again with growing waits"),
        ("Network disconnect", "the same; after some of it the peer is left alone and asked by C-ECHO"),
    ]
    acceptor = [
        ("Timeout", "the association is aborted; what was answered with success is kept"),
        ("Association aborted", "the instance under way is discarded, what was answered is kept"),
        ("Network disconnect", "the same"),
    ]
    head = ("failure", "behavior")
    return Section(
        "General AE Communication and Failure Behavior and Handling",
        (),
        [
            Section("Communication Failure Behavior as Association Initiator", table(head, initiator)),
            Section("Communication Failure Handling as Association Acceptor", table(head, acceptor)),
        ],
    )


def _dimse_statuses() -> Section:
    return Section(
        "DIMSE Services",
        [
            *prose("As SCP:"),
            *table(
                ("status", "meaning", "clause"),
                [(f"0x{status:04X}", said.sentence, said.clause) for status, said in MEANINGS.items()],
            ),
            *prose(
                "As SCU of Storage. RETRY is tried again with growing waits, REFUSED is not. UNSUPPORTED,",
                "also where no presentation context of an instance is accepted, leaves it out at that peer.",
            ),
            *table(("status", "outcome", "meaning"), outcomes()),
        ],
    )


def _web_statuses() -> Section:
    rows = [
        ("200, 202, 409", "as FailureReason and WarningReason say, which are judged like the statuses above"),
        ("400, 406, 411, 413, 422", "REFUSED"),
        ("415", "REFUSED; sent uncompressed first where it was not"),
        ("others", "RETRY"),
    ]
    return Section(
        "DICOM Web Services",
        [
            *prose("As user agent:"),
            *table(("HTTP status of Store", "outcome"), rows),
            *prose("As origin server; a FailureReason is one of the statuses of the SCP above."),
            *table(("HTTP status of Store", "when"), [(f"{s:d}", when) for s, when in STATUSES.items()]),
        ],
    )
