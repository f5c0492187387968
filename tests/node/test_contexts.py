"""The tables that are negotiated with agree with the codecs, and with what the statement will say."""

import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGTransferSyntaxes, UID_dictionary

from node.dimse import contexts
from node.dimse.contexts import STORAGE_CLASSES, STORAGE_SYNTAXES, Syntax
from node.dimse.status import MEANINGS, Status


@pytest.mark.parametrize("syntax", STORAGE_SYNTAXES, ids=lambda syntax: syntax.uid.keyword)
def test_syntax_is_decoded(syntax: Syntax) -> None:
    """An installed codec decodes each transfer syntax that is accepted."""
    assert syntax.uid.is_transfer_syntax
    assert get_decoder(syntax.uid).is_available


def test_classes() -> None:
    """Each SOP class is a storage class of the standard, and listed once."""
    uids = [sop_class.uid for sop_class in STORAGE_CLASSES]
    assert len(set(uids)) == len(uids)
    for uid in uids:
        name, kind = UID_dictionary[uid][:2]
        assert (kind == "SOP Class" and "Image Storage" in name) or "Volume Storage" in name


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
    assert all(found == [syntax.uid for syntax in STORAGE_SYNTAXES] for found in offered.values())


def test_every_status_has_its_clause() -> None:
    """Each status that can be answered says when, and by which clause."""
    assert set(MEANINGS) == set(Status)
