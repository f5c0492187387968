"""Tables and paragraphs of Markdown, for documents that the code prints."""

from collections.abc import Iterable, Sequence
from textwrap import wrap


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table, and an empty one."""

    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(head), f"|{'---|' * len(head)}", *map(line, rows), ""]


def prose(*pieces: str) -> list[str]:
    """Lines of a paragraph."""
    return wrap(" ".join(pieces), 100, break_long_words=False, break_on_hyphens=False)
