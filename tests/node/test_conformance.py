"""The conformance statement is what the code negotiates, and the copy in deploy/ is up to date."""

from pathlib import Path

from click.testing import CliRunner

from node.cli import aenode
from node.conformance import PRIVATE_KEPT, statement
from node.dimse import contexts
from node.dimse.outputs import OUTPUT_CLASSES
from node.dimse.status import MEANINGS
from workers.read.kinds import KINDS
from workers.write import header

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
        for syntax in context.transfer_syntax:
            assert f"| {syntax} |" in text or syntax in contexts.VERIFICATION_SYNTAXES
    for sop_class in (uid for classes in OUTPUT_CLASSES.values() for uid in classes):
        assert f"| {sop_class} |" in text
    for status in MEANINGS:
        assert f"| 0x{status:04X} |" in text


def test_sections_are_in_the_order_of_the_template() -> None:
    """PS3.2 Annex N."""
    headings = [line[3:] for line in statement().splitlines() if line.startswith("## ")]
    assert [heading[0] for heading in headings] == [*"12345678", "A", "A"]
    contents = statement().partition("## 2 ")[2].partition("## 3 ")[0]
    assert all(f"- {heading}" in contents for heading in headings)


def test_derived_series_have_the_classes_that_are_read() -> None:
    """One in, one out: what the workers can read is what may be sent back as a derived series."""
    assert set(OUTPUT_CLASSES["derived"]) == set(KINDS)


def test_private_attributes_are_those_that_the_writer_keeps() -> None:
    """Its allow-list and the statement name the same blocks."""
    listed = {(creator, int(group, 16)) for creator, group, _ in PRIVATE_KEPT}
    assert listed == set(header.PRIVATE_KEPT)
