"""Our codec of command sets is held against pynetdicom's."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import decode, encode

from node.dimse import command
from node.dimse.command import Command, CommandError
from node.dimse.contexts import VERIFICATION
from node.dimse.status import Status

uids = st.from_regex(r"[1-9][0-9]{0,9}(\.[1-9][0-9]{0,9}){1,4}", fullmatch=True)
numbers = st.integers(0, 0xFFFF)


def encoded(message: C_STORE_RQ | C_ECHO_RQ) -> bytes:
    raw = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert raw is not None
    return raw


@given(uid=uids, message_id=numbers, originator=st.sampled_from([None, "MOVER"]))
def test_decode_store(uid: str, message_id: int, originator: str | None) -> None:
    """A C-STORE-RQ of pynetdicom is read as what it says."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = message_id, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, uid
    primitive.MoveOriginatorApplicationEntityTitle = originator
    primitive.DataSet = BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    expected = Command(command.C_STORE_RQ, message_id, CTImageStorage, uid, has_data_set=True)
    assert command.decode(encoded(message)) == expected


def test_decode_echo() -> None:
    """A C-ECHO-RQ of pynetdicom has no data set and no instance."""
    primitive = C_ECHO()
    primitive.MessageID, primitive.AffectedSOPClassUID = 9, VERIFICATION
    message = C_ECHO_RQ()
    message.primitive_to_message(primitive)
    expected = Command(command.C_ECHO_RQ, 9, VERIFICATION, "", has_data_set=False)
    assert command.decode(encoded(message)) == expected


@given(uid=uids, message_id=numbers, status=st.sampled_from(Status), comment=st.text(max_size=100))
def test_response(uid: str, message_id: int, status: Status, comment: str) -> None:
    """Our C-STORE-RSP is what pynetdicom makes of the same values, and it reads it."""
    request = Command(command.C_STORE_RQ, message_id, CTImageStorage, uid, has_data_set=True)
    raw = command.response(request, status, comment)
    found = decode(BytesIO(raw), True, True)
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo = message_id
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, uid
    primitive.Status = int(status)
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    if comment:
        assert len(found.ErrorComment or "") <= 64
        del found.ErrorComment
        found.CommandGroupLength = message.command_set.CommandGroupLength
    else:
        assert raw == encoded(message)
    assert found == message.command_set


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    """Arbitrary bytes are a command or a CommandError, nothing else."""
    try:
        command.decode(data)
    except CommandError:
        return
    assert data


@pytest.mark.parametrize("missing", ["CommandField", "MessageID", "CommandDataSetType"])
def test_missing_element(missing: str) -> None:
    """A command set without an element that it must have is refused by that element's number."""
    ds = Dataset()
    ds.CommandField, ds.MessageID, ds.CommandDataSetType = 0x0030, 1, 0x0101
    del ds[missing]
    raw = encode(ds, True, True)
    assert raw is not None
    with pytest.raises(CommandError, match=r"without \(0000,0[18]"):
        command.decode(raw)
