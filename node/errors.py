"""Every error the node and its workers raise on purpose.

    AenodeError
    ├── ConfigError        config.toml cannot be used; carries every problem at once
    ├── InstanceRefused    a C-STORE request is not accepted; carries the DIMSE status to answer
    ├── IllegalTransition  a state change that states.py does not list
    ├── SeriesRefused      a series cannot be read, or not rightly; the sentence is for a person
    ├── ModelRefused       a model folder is damaged, unknown, or fails its golden input
    ├── ArtifactRefused    an encoded result fails the gate and must not leave
    ├── PeerError          an association or request as SCU failed; says whether to try again
    └── BrokerUnavailable  jobs cannot be handed over just now

Messages never hold patient values: UIDs, attribute names and numbers only.
"""

from dataclasses import dataclass


class AenodeError(Exception):
    """Base of all errors that are raised on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a settings file: where it is, what it is, what is allowed."""

    line: int
    setting: str
    message: str


class ConfigError(AenodeError):
    """The settings file cannot be used. `problems` lists all of its mistakes."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__("\n".join(f"{file}:{p.line}: {p.setting}: {p.message}" for p in problems))


class InstanceRefused(AenodeError):
    """A C-STORE request is not accepted. `status` is what the peer is answered (PS3.4 B.2.3)."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class IllegalTransition(AenodeError):
    """A state change that the tables of states.py do not list."""


class SeriesRefused(AenodeError):
    """A series cannot be read, or not rightly. The message is one sentence for a person."""


class ModelRefused(AenodeError):
    """A model folder is damaged, unknown, or does not reproduce its golden output."""


class ArtifactRefused(AenodeError):
    """An encoded result fails the gate. `findings` holds one sentence for each fault."""

    def __init__(self, findings: list[str]) -> None:
        self.findings = findings
        super().__init__("; ".join(findings))


class PeerError(AenodeError):
    """An association or request as SCU failed. `permanent` means that trying again cannot help."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


class BrokerUnavailable(AenodeError):
    """The broker cannot take a job just now; it is offered again later."""
