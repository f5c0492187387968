"""Section 8."""

import ssl

from node.config import Node
from node.conformance.sections import Section, prose, table
from node.dimse import tls


def security() -> Section:
    """Section 8."""
    return Section(
        "Security",
        (),
        [
            Section(
                "Introduction",
                prose(
                    "Without TLS set up, connections are in the clear, and the network has to protect them.",
                ),
            ),
            Section("External Network Requirements", prose("None beyond TCP/IP; DNS where names are used.")),
            Section("TCP Port Configuration", _ports()),
            Section("DICOM Security Profiles Support", (), _profiles()),
            Section("User Identity Negotiation Support"),
            Section(
                "Web Services Security Features",
                [
                    *prose(
                        "HTTPS with the suites of 8.4.2; the server's certificate is verified. Bearer tokens",
                        "and client certificates by setting; a token is never sent in the clear. Proxies of",
                        "the environment are not used.",
                    ),
                    *prose(
                        "As origin server: every request must bring the bearer token of a peer (RFC 6750) or",
                        "come over TLS with a peer's client certificate, or both where its settings have",
                        "both. Beyond the machine itself TLS is compulsory.",
                    ),
                ],
            ),
            Section(
                "Other Security Features",
                prose("Logs name no patient. AE titles are checked as 7.2.1.4 says."),
            ),
        ],
    )


def _ports() -> list[str]:
    rows = [
        (Node().bind.rpartition(":")[2], "in", "`node.bind`", "DICOM, or DICOM over TLS"),
        ("not set", "in", "`node.tls.bind`", "DICOM over TLS beside the other"),
        ("not set", "in", "`dicomweb.bind`", "HTTPS, or HTTP from the machine itself"),
        ("by peer", "out", "`peers.address`, `peers.dicomweb`", "DICOM, HTTPS"),
        ("by setting", "out", "`audit.syslog`", "syslog over TLS"),
    ]
    return table(("port", "direction", "setting", "protocol"), rows)


def _profiles() -> list[Section]:
    return [
        Section("Secure Use Profiles", prose("Audit Trail Message Format Profile (PS3.15 A.5); see A.C.")),
        Section("Secure Transport Connection Profiles", _transport()),
        Section("Media Storage Security Profiles"),
        Section("Attribute Confidentiality Profiles"),
        Section(
            "Digital Signature Profiles",
            prose("Signatures are kept in what is received, and neither verified nor made."),
        ),
    ]


def _transport() -> list[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(tls.CIPHERS)
    return [
        *prose(
            "BCP 195 TLS profiles of PS3.15 B, the non-downgrading and the extended one included, as",
            f"acceptor and initiator: TLS {tls.MINIMUM.name.removeprefix('TLSv').replace('_', '.')} or",
            "newer, with these suites:",
        ),
        *sorted(f"- {suite['name']} ({suite['protocol']})" for suite in context.get_ciphers()),
        "",
        *prose(
            "An acceptor asks for the peer's certificate unless `require_client_certificate` is false; an",
            "initiator always verifies it, with the name unless `check_name` is false. A peer's",
            "`client_certificate` binds its calling AE title to a certificate.",
        ),
    ]
