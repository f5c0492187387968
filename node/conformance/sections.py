"""The parts that a statement is made of: numbered sections, tables and paragraphs, as Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

_SIGN = "#"


@dataclass(frozen=True)
class Section:
    """A section of the template. Its number comes from its place, so none may be left out."""

    title: str
    lines: Sequence[str] = ()
    parts: "Sequence[Section]" = ()

    @property
    def applies(self) -> bool:
        """Whether it says anything."""
        return bool(self.lines or self.parts)

    @property
    def heading(self) -> str:
        """Its title, marked as the template wants where it does not apply."""
        return self.title if self.applies else f"{self.title} - N/A"


def numbered(sections: Iterable[Section], prefix: str = "") -> Iterator[tuple[str, Section]]:
    """Each section with its number, in the order of reading."""
    for place, section in enumerate(sections, start=1):
        number = f"{prefix}{place}"
        yield number, section
        yield from numbered(section.parts, f"{number}.")


def markdown(number: str, section: Section) -> Iterator[str]:
    """A section's heading and text."""
    depth = number.count(".") - number.startswith("A")
    annex = "Annex " if number.startswith("A") and depth == 0 else ""
    yield f"{_SIGN * (2 + depth)} {annex}{number} {section.heading}"
    yield ""
    yield from section.lines
    if section.lines and section.lines[-1]:
        yield ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table, with an empty line after it."""

    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(head), f"|{'---|' * len(head)}", *map(line, rows), ""]


def prose(*pieces: str) -> list[str]:
    """A paragraph, with an empty line after it."""
    return [*wrap(" ".join(pieces), 100, break_long_words=False, break_on_hyphens=False), ""]


def yes(flag: bool) -> str:
    """A cell of a table."""
    return "Yes" if flag else "No"
