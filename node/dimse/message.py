"""DIMSE messages from their fragments (PS3.7 6.3, PS3.8 E): what a request asks for, and its answer.

The services of an association stand in `Message._taken`: C-STORE, C-ECHO, C-CANCEL, and storage
commitment's N-EVENT-REPORT, which a peer sends with the roles reversed.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from node.dimse import command, contexts
from node.dimse.command import Command, CommandError
from node.dimse.negotiation import Context
from node.dimse.pdu import ProtocolViolation
from node.dimse.status import AbortReason, Status
from node.errors import InstanceRefused

_LONGEST_COMMAND = 64 << 10


class Arriving(Protocol):
    """A data set on its way in. Any call may raise InstanceRefused."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes."""
        ...

    def finish(self) -> None:
        """All bytes are there; on return the instance is durable."""
        ...

    def discard(self) -> None:
        """The rest will not come."""
        ...


class Storage(Protocol):
    """Where the instances of one association go."""

    def begin(self, request: Command, context: Context) -> Arriving:
        """Take a C-STORE request. Raises InstanceRefused."""
        ...

    def begin_report(self, request: Command, context: Context) -> Arriving:
        """Take a report of storage commitment. Raises InstanceRefused."""
        ...


Answer = Callable[[Context, Command, Status, str], None]


def pdvs(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Context id, message control header and fragment of each presentation data value (PS3.8 9.3.5.1)."""
    at, end = 0, len(body)
    while at < end:
        length = int.from_bytes(body[at : at + 4], "big")
        if length < 2 or at + 4 + length > end:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"a PDV of {length} bytes")
        yield body[at + 4], body[at + 5], body[at + 6 : at + 4 + length]
        at += 4 + length


class Message:
    """The message under way: its command set, then its data set, fragment by fragment (PS3.8 E)."""

    def __init__(self, storage: Storage, answer: Answer) -> None:
        self._storage = storage
        self._answer = answer
        self._command = bytearray()
        self._context: Context | None = None
        self._request: Command | None = None  # its data set is awaited
        self._arriving: Arriving | None = None
        self._refusal: tuple[Status, str] | None = None  # the rest of the data set is thrown away

    @property
    def under_way(self) -> bool:
        """Whether the rest of a message is awaited."""
        return self._context is not None

    def add(self, context: Context, control: int, fragment: memoryview) -> None:
        """Take one PDV. Raises ProtocolViolation where it cannot follow the one before."""
        is_command, is_last = control & 0x01, control & 0x02
        if self._context is None:
            self._context = context
        if context is not self._context or bool(is_command) != (self._request is None):
            sentence = "a PDV that does not continue its message"
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, sentence)
        if is_command:
            if len(self._command) + len(fragment) > _LONGEST_COMMAND:
                sentence = f"a command set of more than {_LONGEST_COMMAND} bytes"
                raise ProtocolViolation(AbortReason.INVALID_PARAMETER, sentence)
            self._command += fragment
            if is_last:
                self._begin(context)
        else:
            self._write(fragment)
            if is_last:
                self._finish(context)

    def discard(self) -> bool:
        """Forget an unfinished message. Whether an instance was under way."""
        if self._arriving is None:
            return False
        self._arriving.discard()
        self._arriving = None
        return True

    def _begin(self, context: Context) -> None:
        try:
            request = command.decode(self._command)
        except CommandError as error:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, str(error)) from None
        self._command.clear()
        if request.field & command.RESPONSE:
            sentence = f"a response, 0x{request.field:04X}, to no request"
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, sentence)
        self._request = request
        self._refusal = self._taken(request, context)
        if not request.has_data_set:
            self._finish(context)

    def _taken(self, request: Command, context: Context) -> tuple[Status, str] | None:
        """Prepare for a request; the status and comment of its answer where that is known already."""
        reporting = context.abstract_syntax == contexts.STORAGE_COMMITMENT
        storing = context.abstract_syntax != contexts.VERIFICATION and not reporting
        try:
            if request.field == command.C_STORE_RQ and storing:
                self._arriving = self._arrival(request, context)
                return None
            if request.field == command.N_EVENT_REPORT_RQ and reporting:
                if not request.has_data_set:
                    return Status.INVALID_ARGUMENT, "a report without a data set"
                self._arriving = self._storage.begin_report(request, context)
                return None
        except InstanceRefused as error:
            return Status(error.status), str(error)
        if request.field in (command.C_ECHO_RQ, command.C_CANCEL_RQ):
            return Status.SUCCESS, ""
        return Status.UNRECOGNIZED_OPERATION, "only C-STORE, C-ECHO and reports are provided"

    def _arrival(self, request: Command, context: Context) -> Arriving:
        if not request.has_data_set:
            raise InstanceRefused(Status.CANNOT_UNDERSTAND, "C-STORE without a data set")
        if request.sop_class_uid != context.abstract_syntax:
            why = "not the SOP class of its presentation context"
            raise InstanceRefused(Status.SOP_CLASS_NOT_SUPPORTED, why)
        return self._storage.begin(request, context)

    def _write(self, fragment: memoryview) -> None:
        if self._arriving is not None:
            try:
                self._arriving.write(fragment)
            except InstanceRefused as error:
                self._refuse(error)

    def _refuse(self, error: InstanceRefused) -> None:
        assert self._arriving is not None
        self._refusal = Status(error.status), str(error)
        self._arriving.discard()
        self._arriving = None

    def _finish(self, context: Context) -> None:
        request = self._request
        assert request is not None
        if self._arriving is not None:
            try:
                self._arriving.finish()
            except InstanceRefused as error:
                self._refuse(error)
        status, comment = self._refusal or (Status.SUCCESS, "")
        self._context = self._request = self._arriving = self._refusal = None
        self._answer(context, request, status, comment)
