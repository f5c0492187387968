"""The log: one line an event, whatever a peer sends."""

import json
import logging
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset

from node.config import Log
from node.log import start


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def test_a_peer_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks, escapes and Unicode separators of remote text are escaped."""
    start(Log())
    logging.getLogger("aenode.test").warning("from %s", "EVIL\n2026 root: all is well\x1b[2J\u2028x")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert r"EVIL\x0a2026 root: all is well\x1b[2J\x2028x" in lines[0]


def test_json_lines_parse(capsys: pytest.CaptureFixture[str]) -> None:
    """With format = json each line is an object."""
    start(Log(format="json", level="debug"))
    logging.getLogger("aenode.test").debug("%d instances", 3)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("debug", "aenode.test", "3 instances")


def test_pydicom_quotes_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    """What pydicom finds wrong with a value is neither logged nor warned of: it would quote the value."""
    level = logging.getLogger("pydicom").level
    try:
        start(Log(level="debug"))
        Dataset().PatientBirthDate = "born^yesterday"
    finally:
        logging.getLogger("pydicom").setLevel(level)
    assert "yesterday" not in capsys.readouterr().err
