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
    handlers = list(root.handlers)
    loggers = [root, *(x for x in root.manager.loggerDict.values() if isinstance(x, logging.Logger))]
    levels = [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


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
    start(Log(level="debug"))
    Dataset().PatientBirthDate = "born^yesterday"
    assert "yesterday" not in capsys.readouterr().err
