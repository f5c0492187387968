"""Logging to standard error, as text or as JSON lines.

Control characters are escaped in every line, so that nothing a peer sends can forge or hide
one. No patient value is ever logged: UIDs, AE titles, counts and times only.
"""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

from node.config import Log

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029)}


def escape(text: str) -> str:
    """`text` with control characters and line separators as \\x.. escapes."""
    return text.translate(_ESCAPED)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{at} {record.levelname.lower():7} {record.name}: {escape(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escape(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start(settings: Log) -> None:
    """Send the log of this process to standard error as the settings say."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_Json() if settings.format == "json" else _Text())
    logging.basicConfig(level=settings.level.upper(), handlers=[output], force=True)
    # pydicom says what is wrong with a value by quoting it.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    # What it says of a refused connection, node.dimse says in one sentence.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    for noisy in ("celery", "kombu", "amqp", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
