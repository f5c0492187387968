"""The conformance statement is what the code negotiates, and the copy in deploy/ is up to date."""

from pathlib import Path

from click.testing import CliRunner
from highdicom.sr.coding import CodedConcept

from node.cli import aenode
from node.conformance import CODES, PRIVATE_KEPT, statement
from node.dimse import contexts
from node.dimse.outputs import OUTPUT_CLASSES
from node.dimse.status import MEANINGS
from workers.read.kinds import KINDS
from workers.write import coding, header

# Of the template: the first two levels, and the parts of what we do.
TEMPLATE = (
    "1 Overview",
    "1.1 Content and Transfer",
    "1.2 DIMSE Services",
    "1.3 DICOM Web Services",
    "1.4 Media Services",
    "1.5 Real-Time Video Service",
    "1.6 De-Identification Profiles",
    "1.7 Specific Character Sets",
    "2 Table of Contents",
    "3 Introduction",
    "4 Implementation Model",
    "4.1 Application Entities and Data Flow",
    "5 Service and Interoperability Description",
    "5.1 Mapping of Services to Application Entities",
    "5.2 DIMSE Services",
    "5.2.5 Storage Service",
    "5.2.5.1 SCU of the Storage SOP Classes",
    "5.2.5.1.1 Transcoding of Transfer Syntaxes",
    "5.2.5.2 SCP of the Storage SOP Classes",
    "5.2.6 Storage Commitment Service",
    "5.3 DICOM Web Services",
    "5.3.2 Studies Web Service",
    "5.3.2.3 Store",
    "5.3.2.3.1 Origin Server",
    "5.3.2.4 Search",
    "6 Configuration",
    "6.1 General Configuration Parameters",
    "6.2 Configuration of DIMSE Services",
    "7 Network and Media Communication Details",
    "7.2 Specifications",
    "7.3 Status Codes",
    "7.3.1 General AE Communication and Failure Behavior and Handling",
    "7.3.1.1 Communication Failure Behavior as Association Initiator",
    "7.3.1.2 Communication Failure Handling as Association Acceptor",
    "8 Security",
    "Annex A.A Information Object Definitions (IODs)",
    "A.A.1 Information Shared Across Multiple IODs",
    "A.A.1.1 Common Modules",
)
COPY = Path(__file__).parents[2] / "deploy" / "conformance.md"


def test_the_copy_is_up_to_date() -> None:
    """`aenode conformance > deploy/conformance.md` was run after the last change."""
    printed = CliRunner().invoke(aenode, ["conformance"])
    assert printed.exit_code == 0
    assert printed.stdout == statement()
    assert COPY.read_text(encoding="utf-8") == statement()


def test_all_that_is_negotiated_and_answered_is_listed() -> None:
    """Each context that the acceptor accepts, each class that is sent, and each status that is answered."""
    text = statement()
    for context in contexts.acceptable():
        assert f"{context.abstract_syntax}" in text
        assert all(f"| {syntax} |" in text for syntax in context.transfer_syntax)
    for sop_class in (uid for classes in OUTPUT_CLASSES.values() for uid in classes):
        assert f"| {sop_class} |" in text
    for status in MEANINGS:
        assert f"| 0x{status:04X} |" in text


def test_sections_are_in_the_order_of_the_template() -> None:
    """PS3.2 Annex N: its numbers and titles; what does not apply keeps its place and says so."""
    headings = [line.lstrip("# ") for line in statement().splitlines() if line.startswith("##")]
    found = [heading for heading in headings if heading.partition(" - N/A")[0] in TEMPLATE]
    assert [heading.partition(" - N/A")[0] for heading in found] == list(TEMPLATE)
    absent = {heading.removesuffix(" - N/A") for heading in headings if heading.endswith(" - N/A")}
    assert {"1.4 Media Services", "5.2.1 Basic Worklist Management Service", "5.3.2.2 Retrieve"} <= absent
    contents = statement().partition("## 2 ")[2].partition("## 3 ")[0]
    chapters = [line[3:] for line in statement().splitlines() if line.startswith(("## ", "### "))]
    assert all(f"- {chapter.removeprefix('Annex ').strip()}" in contents for chapter in chapters)


def test_codes_are_those_that_are_written() -> None:
    """Every coded concept of the writers and of rejection notes stands in Annex A.E, and no other."""
    named = [found for found in vars(coding).values() if isinstance(found, CodedConcept)]
    written = {(c.value, c.scheme_designator) for c in [*named, *coding.PROCEDURES.values()]}
    written |= {("113001", "DCM"), ("113012", "DCM"), ("109102", "DCM")}
    assert {(value, scheme) for value, scheme, _, _ in CODES} == written


def test_derived_series_have_the_classes_that_are_read() -> None:
    """One in, one out: what the workers can read is what may be sent back as a derived series."""
    assert set(OUTPUT_CLASSES["derived"]) == set(KINDS)


def test_private_attributes_are_those_that_the_writer_keeps() -> None:
    """Its allow-list and the statement name the same blocks."""
    listed = {(creator, int(group, 16)) for creator, group, _ in PRIVATE_KEPT}
    assert listed == set(header.PRIVATE_KEPT)
