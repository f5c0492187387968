"""config.toml: read and checked as a whole, and read again when it changes.

Every mistake is reported at once with its line and what is allowed. Relative paths are relative
to the folder of the file.
"""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from node.config import TLS, PeerTLS, Settings, WebTLS
from node.errors import ConfigError, Problem


def load(path: Path) -> Settings:
    """Read and check a settings file. Raises ConfigError with every mistake in it."""
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Problem(0, "file", f"cannot be read: {error}")]) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise ConfigError(
            str(path), [Problem(int(line[1]) if line else len(text.splitlines()), "syntax", str(error))]
        ) from error
    lines = _lines_of_settings(text)
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        problems = [_problem(dict(e), lines) for e in error.errors()] + _crossed(table, lines)
        raise ConfigError(str(path), sorted(problems, key=lambda p: p.line)) from None
    if problems := _crossed(table, lines):
        raise ConfigError(str(path), problems)
    return _beside(path.resolve().parent, settings)


def _beside(folder: Path, settings: Settings) -> Settings:
    """The settings with their paths made absolute; a model's name of the zoo is no path."""
    own = settings.node.tls and _absolute(folder, settings.node.tls)
    web = settings.dicomweb
    if web.tls is not None:
        web = web.model_copy(update={"tls": _with_own(_absolute(folder, web.tls), own)})
    node = settings.node.model_copy(update={"data": (folder / settings.node.data).resolve(), "tls": own})
    peers = tuple(
        _absolute(folder, p).model_copy(
            update={"tls": _with_own(_absolute(folder, p.tls), own) if p.tls else None}
        )
        for p in settings.peers
    )
    pipelines = tuple(
        p.model_copy(update={"model": str((folder / p.model).resolve())})
        if p.model.startswith(("./", "../", "/"))
        else p
        for p in settings.pipelines
    )
    audit = settings.audit
    if audit.syslog_ca is not None:
        audit = audit.model_copy(update={"syslog_ca": (folder / audit.syslog_ca).resolve()})
    made = {"node": node, "peers": peers, "pipelines": pipelines, "audit": audit, "dicomweb": web}
    return settings.model_copy(update=made)


_T = TypeVar("_T", bound=BaseModel)


def _absolute(folder: Path, section: _T) -> _T:
    paths = {name: folder / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


_W = TypeVar("_W", PeerTLS, WebTLS)


def _with_own(tls: _W, own: TLS | None) -> _W:
    """TLS settings, with what they leave open taken from node.tls."""
    if own is None:
        return tls
    inherited: dict[str, Path | None] = {} if tls.ca else {"ca": own.ca}
    if tls.certificate is None:
        inherited |= {"certificate": own.certificate, "key": own.key}
    return tls.model_copy(update=inherited)


Location = tuple[str | int, ...]


def _lines_of_settings(text: str) -> dict[Location, int]:
    """Line number of each table header and key, by its path in the parsed document."""
    lines: dict[Location, int] = {}
    arrays: Counter[Location] = Counter()
    table: Location = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*(\[\[?)([^\[\]]+)\]", line):
            table = tuple(part.strip().strip('"') for part in header[2].split("."))
            if header[1] == "[[":
                arrays[table] += 1
            if arrays[table[:1]]:
                table = (table[0], arrays[table[:1]] - 1, *table[1:])
            lines.setdefault(table, number)
        elif key := re.match(r'\s*"?([A-Za-z0-9_-]+)"?\s*=', line):
            lines.setdefault((*table, key[1]), number)
    return lines


def _line_of(location: Location, lines: dict[Location, int]) -> int:
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def _label(location: Location) -> str:
    label = ""
    for part in location:
        label += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if label else part
    return label


def _problem(error: dict[str, Any], lines: dict[Location, int]) -> Problem:
    location: Location = error["loc"]
    # A union reports once for each of its members; what a person wrote ends before their names.
    while location and re.search(r"[\[\(]|^(str|int|float|list)$", str(location[-1])):
        location = location[:-1]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = Settings.model_fields if len(location) == 1 else _fields_beside(location)
        message = "no such setting; allowed: " + ", ".join(known)
    elif error["type"] == "string_pattern_mismatch":
        message = f"{message} (is {error['input']!r})"
    return Problem(_line_of(location, lines), _label(location), message)


def _fields_beside(location: Location) -> list[str]:
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section_in(annotation: object) -> type[BaseModel] | None:
    """The section that a field's type holds, such as that of `tuple[Peer, ...]` or `TLS | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)


def _crossed(table: dict[str, Any], lines: dict[Location, int]) -> list[Problem]:
    """Mistakes between sections: names used twice, and names that nothing has."""
    problems: list[Problem] = []
    names: dict[str, list[object]] = {}
    for section in ("peers", "pipelines", "rules"):
        rows = [row for row in table.get(section, []) if isinstance(row, dict)]
        names[section] = [row.get("name") for row in rows]
        for number, name in enumerate(names[section]):
            if name is not None and name in names[section][:number]:
                at: Location = (section, number, "name")
                problems.append(Problem(_line_of(at, lines), _label(at), f"{name!r} is used twice"))
    peers = [row for row in table.get("peers", []) if isinstance(row, dict)]
    addressed = {row.get("name") for row in peers if row.get("address") or row.get("dicomweb")}
    for number, rule in enumerate(r for r in table.get("rules", []) if isinstance(r, dict)):
        for key, allowed in (("pipelines", set(names["pipelines"])), ("send_to", addressed)):
            at = ("rules", number, key)
            used = rule.get(key, [])
            for name in used if isinstance(used, list) else []:
                if name not in allowed:
                    listed = ", ".join(sorted(map(str, allowed))) or "none is set up"
                    what = "pipeline" if key == "pipelines" else "peer with an address"
                    message = f"no {what} is called {name!r}; allowed: {listed}"
                    problems.append(Problem(_line_of(at, lines), _label(at), message))
    return problems + _crossed_access(table, peers, lines)


def _crossed_access(
    table: dict[str, Any], peers: list[dict[str, Any]], lines: dict[Location, int]
) -> list[Problem]:
    """Mistakes about who may send: certificates that nothing can check, titles that two could mean."""
    found: list[tuple[Location, str]] = []
    own, web = _table(_table(table, "node"), "tls"), _table(table, "dicomweb")
    has_web = bool(web.get("tls")) or isinstance(web.get("tls"), dict)
    secure = _table(web, "tls")
    authorities = own.get("ca") or (has_web and secure.get("ca"))
    if has_web and not (secure.get("certificate") or own.get("certificate")):
        found.append((("dicomweb", "tls"), "needs a certificate, its own or that of node.tls"))
    if has_web and secure.get("require_client_certificate") and not authorities:
        found.append(
            (("dicomweb", "tls"), "require_client_certificate needs ca, its own or that of node.tls")
        )
    titles = {peer.get("ae_title") for peer in peers}
    for number, peer in enumerate(peers):
        if peer.get("client_certificate") and not authorities:
            message = "needs an authority to check it by: node.tls.ca or dicomweb.tls.ca"
            found.append((("peers", number, "client_certificate"), message))
        if not peer.get("ae_title") and peer.get("name") in titles:
            message = f"{peer.get('name')!r} is another peer's AE title; here it would stand for one"
            found.append((("peers", number, "name"), message))
    return [Problem(_line_of(at, lines), _label(at), message) for at, message in found]


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key)
    return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class SettingsFile:
    """A settings file that is read again when it changes; a bad one leaves the old in force."""

    path: Path
    settings: Settings
    error: ConfigError | None = None
    _seen: tuple[int, int] = (0, 0)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Load for the first time. Raises ConfigError."""
        return cls(path, load(path), None, cls._stamp(path))

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int]:
        try:
            stat = path.stat()
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_size)

    def refresh(self) -> bool:
        """Look whether the file changed. True where it did; `error` then says whether it was refused."""
        stamp = self._stamp(self.path)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.settings, self.error = load(self.path), None
        except ConfigError as error:
            self.error = error
        return True
