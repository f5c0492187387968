"""Kinds of values in config.toml that several sections share: sizes, AE titles, addresses, names."""

import re
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)", value.strip())
    if match is None:
        raise ValueError('allowed: a size such as "5 GiB" (B, KiB, MiB, GiB, TiB)')
    return int(float(match[1]) * _UNITS[match[2]])


def _ae_title(value: object) -> object:
    # PS3.5 6.2, AE: 1 to 16 characters, no backslash, no control characters, not only spaces.
    if isinstance(value, str) and re.fullmatch(r"(?! *$)[ -\[\]-~]{1,16}", value):
        return value.strip()
    raise ValueError("allowed: 1 to 16 printable ASCII characters without a backslash")


def _address(value: object) -> object:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if host and port.isdecimal() and int(port) < 65536:
            return value
    raise ValueError('allowed: "host:port", such as "10.0.0.5:104"')


def _client_certificate(value: object) -> object:
    if isinstance(value, str):
        kind, colon, digest = value.partition(":")
        if colon and kind.lower() == "sha256":
            digest = digest.replace(":", "").lower()
            if re.fullmatch(r"[0-9a-f]{64}", digest):
                return f"sha256:{digest}"
        elif not colon and value.strip() and value.isprintable():
            return value.strip()
    raise ValueError('allowed: "sha256:" and 64 hexadecimal digits, or a name that stands in the certificate')


Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
AETitle = Annotated[str, BeforeValidator(_ae_title)]
Address = Annotated[str, BeforeValidator(_address)]
ClientCertificate = Annotated[str, BeforeValidator(_client_certificate)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$")]
Seconds = Annotated[float, Field(gt=0)]


def table_or_bool(value: object) -> object:
    """For a table that `true` stands for where all of it has defaults; `false` means none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def is_loopback(host: str) -> bool:
    """Whether an address or name is that of this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def host_port(address: str) -> tuple[str, int]:
    """Split "host:port"; brackets of an IPv6 host are taken off."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def redis_socket(data: Path) -> Path:
    """Unix socket of the embedded Redis; outside the data folder where its path would be too long (108)."""
    socket = data / "redis.sock"
    if len(str(socket)) < 100:
        return socket
    name = sha256(str(data).encode()).hexdigest()[:16]
    return Path(gettempdir()) / f"aenode-{name}" / "redis.sock"


class Section(BaseModel):
    """A table of the file: unchangeable, and no other keys than these."""

    model_config = ConfigDict(frozen=True, extra="forbid")
