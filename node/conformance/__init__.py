"""The DICOM conformance statement in the shape of PS3.2 Annex N, made of the tables that the code runs on.

`deploy/conformance.md` is this text; a test holds the two together. Only what no table of the code
knows is written out here. Sections of the template that do not apply keep their number and say so.
"""

from collections.abc import Iterator

from node import __version__
from node.conformance.annexes import CODES, PRIVATE_KEPT, annexes
from node.conformance.network import configuration, network
from node.conformance.overview import implementation_model, introduction, overview
from node.conformance.sections import Section, markdown, numbered
from node.conformance.security import security
from node.conformance.services import services

__all__ = ["CODES", "PRIVATE_KEPT", "statement"]

_CONTENTS = "Table of Contents"


def statement() -> str:
    """The statement as Markdown."""
    body = [
        overview(),
        Section(_CONTENTS, [""]),
        introduction(),
        implementation_model(),
        services(),
        configuration(),
        network(),
        security(),
    ]
    sections = [*numbered(body), *_annexes()]
    lines = [f"# DICOM Conformance Statement of aenode {__version__}", ""]
    lines += ["Made by `aenode conformance`, after the template of PS3.2 Annex N.", ""]
    for number, section in sections:
        shown = Section(_CONTENTS, _contents(sections)) if section.title == _CONTENTS else section
        lines += markdown(number, shown)
    return "\n".join(lines).rstrip() + "\n"


def _annexes() -> Iterator[tuple[str, Section]]:
    for number, section in annexes():
        yield number, section
        yield from numbered(section.parts, f"{number}.")


def _contents(sections: list[tuple[str, Section]]) -> list[str]:
    """The sections of the first two levels."""
    depth = {number: number.count(".") - number.startswith("A") for number, _ in sections}
    return [f"{'  ' * depth[n]}- {n} {section.heading}" for n, section in sections if depth[n] <= 1]
