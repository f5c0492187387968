"""The tables that are negotiated with agree with the codecs, and with what the statement will say."""

import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGTransferSyntaxes, UID_dictionary

from node.dimse import contexts
from node.dimse.contexts import STORAGE_SYNTAXES, Syntax
from node.dimse.outputs import OUTPUT_CLASSES
from node.dimse.status import MEANINGS, Status
from node.sop_classes import COMPANION_UIDS, IMAGE_CLASSES, STORAGE_CLASSES


@pytest.mark.parametrize("syntax", STORAGE_SYNTAXES, ids=lambda syntax: syntax.uid.keyword)
def test_syntax_is_decoded(syntax: Syntax) -> None:
    """An installed codec decodes each transfer syntax that is accepted."""
    assert syntax.uid.is_transfer_syntax
    assert get_decoder(syntax.uid).is_available


def test_classes() -> None:
    """Each SOP class is a storage class of the standard, and listed once."""
    uids = [sop_class.uid for sop_class in STORAGE_CLASSES]
    assert len(set(uids)) == len(uids)
    images = {sop_class.uid for sop_class in IMAGE_CLASSES}
    assert images.isdisjoint(COMPANION_UIDS)
    for uid in uids:
        name, kind = UID_dictionary[uid][:2]
        assert (kind == "SOP Class" and name.endswith("Storage")) or "For Pre" in name or "For Proc" in name
        assert (uid in images) == ("Image Storage" in name or "Volume Storage" in name)


def test_what_we_send_we_take() -> None:
    """An archive that routes everything back to us must not be refused: it would try again for ever."""
    sent = {uid for classes in OUTPUT_CLASSES.values() for uid in classes}
    assert sent <= {sop_class.uid for sop_class in STORAGE_CLASSES}


def test_order_of_preference() -> None:
    """Uncompressed little endian comes first, and nothing that may lose information before what does not."""
    lossy = [syntax.lossy for syntax in STORAGE_SYNTAXES]
    assert lossy == sorted(lossy)
    assert not STORAGE_SYNTAXES[0].uid.is_compressed
    assert {syntax.uid for syntax in STORAGE_SYNTAXES} >= set(JPEGTransferSyntaxes)


def test_negotiated_is_listed() -> None:
    """The contexts that are negotiated are those tables, verification and reports of commitment."""
    offered = {context.abstract_syntax: context.transfer_syntax for context in contexts.acceptable()}
    assert offered.pop(contexts.VERIFICATION) == list(contexts.VERIFICATION_SYNTAXES)
    assert offered.pop(contexts.STORAGE_COMMITMENT) == list(contexts.VERIFICATION_SYNTAXES)
    assert set(offered) == {sop_class.uid for sop_class in STORAGE_CLASSES}
    every = [syntax.uid for syntax in STORAGE_SYNTAXES]
    plain = [uid for uid in every if not uid.is_encapsulated]
    for sop_class in STORAGE_CLASSES:
        assert offered[sop_class.uid] == (every if sop_class.pixels else plain)


def test_every_status_has_its_clause() -> None:
    """Each status that can be answered says when, and by which clause."""
    assert set(MEANINGS) == set(Status)
