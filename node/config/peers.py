"""`[[peers]]`: who sends to us and who gets results."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from node.config.values import Address, AETitle, Name, Section, Size

# How results are encoded for a peer that accepts it so; "auto" is the first of them that it accepts.
TransferSyntax = Literal["explicit-little", "jpeg-ls", "jpeg-2000", "htj2k", "auto"]


class PeerTLS(Section):
    """How we speak TLS to a peer; the files are those of node.tls unless others are named."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    server_name: str | None = Field(None, min_length=1)
    check_name: bool = True

    @model_validator(mode="after")
    def _a_key_has_its_certificate(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs its certificate")
        return self


def _tls(value: object) -> object:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class Peer(Section):
    """A remote Application Entity. Without an address or a DICOMweb URL it can only send to us."""

    name: Name
    ae_title: AETitle
    address: Address | None = None
    dicomweb: str | None = Field(None, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    token_file: Path | None = None
    token_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    tls: Annotated[PeerTLS | None, BeforeValidator(_tls)] = None
    transfer_syntax: TransferSyntax = "explicit-little"
    prove: Literal["commitment", "find", "none"] = "none"
    find: bool = True
    associations: int = Field(1, ge=1, le=16)
    max_associations: int | None = Field(None, ge=1)
    quota: Size | None = None
    priority: Literal["stat", "routine"] = "routine"

    @property
    def reachable(self) -> bool:
        """Whether results can be sent to it."""
        return self.address is not None or self.dicomweb is not None

    @model_validator(mode="after")
    def _dicomweb_has_what_it_needs(self) -> Self:
        if self.token_file or self.token_env:
            if not (self.dicomweb or "").startswith("https://"):
                raise ValueError("a token is for dicomweb, and must not travel in the clear: https:// only")
            if self.token_file and self.token_env:
                raise ValueError("allowed: token_file or token_env, not both")
        if self.prove == "commitment" and self.dicomweb and self.address is None:
            raise ValueError('DICOMweb has no storage commitment; allowed: prove = "find" or "none"')
        return self
