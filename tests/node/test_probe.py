"""`aenode probe` against real peers: what it finds, what it warns of, and what it leaves behind (nothing)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    SegmentationStorage,
)

from node.commands.probe import warnings_of
from node.config import Peer, Settings
from node.dimse.outputs import OUTPUT_CLASSES, proposed
from node.dimse.probing import Findings, probe
from tests.certificates import Authority
from tests.node.committing import CommittingSCP
from tests.peers import LOOPBACK, Orthanc, StoreSCP, free_port


def peer_at(port: int, **settings: object) -> Peer:
    return Peer.model_validate(
        {"name": "archive", "ae_title": "ORTHANC", "address": f"{LOOPBACK}:{port}", **settings}
    )


def settings_for(peer: Peer) -> Settings:
    """A rule that sends the default outputs to the peer."""
    return Settings.model_validate(
        {
            "peers": [peer.model_dump()],
            "pipelines": [{"name": "ct", "model": "ct"}],
            "rules": [{"name": "all", "when": {}, "pipelines": ["ct"], "send_to": [peer.name]}],
        }
    )


def syntaxes(found: Findings, sop_class: str) -> tuple[str, ...]:
    return next(accepted.syntaxes for accepted in found.accepted if accepted.sop_class == sop_class)


def test_each_kind_fits_one_association() -> None:
    """At most 128 presentation contexts, and each kind of output has some."""
    for output in OUTPUT_CLASSES:
        assert 0 < len(proposed(output)) <= 128


def test_orthanc(orthanc: Orthanc) -> None:
    """It takes every kind, commits itself and answers C-FIND; nothing is stored by asking."""
    peer = peer_at(orthanc.port, prove="commitment")
    found = probe(peer, "AENODE")
    assert found.error == ""
    assert found.echo_seconds is not None
    assert {accepted.output for accepted in found.accepted} == set(OUTPUT_CLASSES)
    assert all(accepted.storable for accepted in found.accepted)
    assert JPEG2000Lossless in syntaxes(found, CTImageStorage)
    assert HTJ2KLossless not in syntaxes(found, CTImageStorage)  # Orthanc 1.10 knows none of it
    assert found.commitment
    assert found.find
    assert orthanc.instances() == []
    assert warnings_of(found, peer, settings_for(peer)) == []
    careless = peer_at(orthanc.port)
    assert warnings_of(found, careless, settings_for(careless)) == [
        'prove = "none", but archive could prove what it keeps: "commitment"'
    ]


def test_a_storage_provider_alone(tmp_path: Path) -> None:
    """DCMTK's storescp: no commitment, no C-FIND, and only the syntaxes that it was told."""
    with StoreSCP(tmp_path / "scp", "+xt") as scp:  # JPEG-LS lossless and the uncompressed
        peer = peer_at(scp.port, prove="commitment")
        found = probe(peer, "AENODE")
    assert JPEGLSLossless in syntaxes(found, CTImageStorage)
    assert JPEG2000Lossless not in syntaxes(found, CTImageStorage)
    assert "DCMTK" in found.implementation
    assert not found.commitment
    assert not found.find
    said = warnings_of(found, peer, settings_for(peer))
    assert said == [
        'prove = "commitment", but archive has no storage commitment; and no C-FIND: nothing will be proven'
    ]
    for setting, warned in (("jpeg-ls", False), ("auto", False), ("jpeg-2000", True), ("htj2k", True)):
        wanting = peer_at(scp.port, transfer_syntax=setting)
        said = warnings_of(found, wanting, settings_for(wanting))
        assert any(f'"{setting}" is not accepted for CT Image Storage' in s for s in said) is warned
    peer = peer_at(scp.port, prove="find")
    assert "C-FIND is not answered" in warnings_of(found, peer, settings_for(peer))[0]


def test_implicit_only(tmp_path: Path) -> None:
    """Implicit VR is enough: results are encoded anew for it."""
    with StoreSCP(tmp_path / "scp", "+xi") as scp:
        found = probe(peer_at(scp.port), "AENODE")
    assert syntaxes(found, CTImageStorage) == (ImplicitVRLittleEndian,)
    assert all(accepted.storable for accepted in found.accepted)


def test_what_rules_send_and_the_peer_does_not_take_is_a_warning() -> None:
    """An archive for images of CT and MR only: no segmentation, no report, no capture, no PET."""
    with CommittingSCP() as scp:
        peer = scp.peer().model_copy(update={"prove": "commitment"})
        found = probe(peer, "AENODE")
    assert found.commitment
    assert syntaxes(found, CTImageStorage)[0] == ExplicitVRLittleEndian
    assert syntaxes(found, SegmentationStorage) == ()
    said = warnings_of(found, peer, settings_for(peer))
    assert any(
        "segmentation (of ct) would be left out: no Segmentation Storage is accepted" in s for s in said
    )
    assert any("derived would be left out for some sources" in s for s in said)
    assert any("provides no C-ECHO" in s for s in said)
    assert not any("parametric" in s for s in said)  # no rule asks for it


def test_a_silent_or_unwilling_peer(tmp_path: Path) -> None:
    """One warning that says why; the rest is not asked."""
    peer = peer_at(free_port())
    found = probe(peer, "AENODE", timeout=2)
    assert found.accepted == []
    assert warnings_of(found, peer, settings_for(peer)) == [found.error]
    assert "no connection" in found.error
    with Orthanc(tmp_path / "orthanc", DicomCheckCalledAet=True) as orthanc:
        found = probe(peer_at(orthanc.port, ae_title="NOBODY"), "AENODE")
    assert "rejected" in found.error


def test_in_the_clear_beyond_this_machine() -> None:
    """A peer elsewhere without TLS is a warning; one on loopback or with TLS is not."""
    found = Findings("archive", 0.01, find=True, commitment=True)
    for address, tls, warned in (
        ("10.0.0.5:104", False, True),
        ("pacs.hospital:104", False, True),
        ("10.0.0.5:2762", True, False),
        ("localhost:104", False, False),
        ("[::1]:104", False, False),
    ):
        peer = Peer.model_validate(
            {"name": "archive", "ae_title": "A", "address": address, "tls": tls, "prove": "find"}
        )
        assert any("in the clear" in s for s in warnings_of(found, peer, Settings())) is warned


@pytest.mark.parametrize("as_json", [True, False])
def test_command(tmp_path: Path, as_json: bool) -> None:
    """A table for people, JSON for programs, over TLS by the settings; 0, and 2 on a wrong name."""
    authority = Authority(tmp_path / "ca")
    own = authority.issue("peer")
    tls = ["+tls", str(own.key), str(own.certificate), "+cf", str(authority.ca)]
    config = tmp_path / "config.toml"
    with StoreSCP(tmp_path / "scp", *tls) as scp:
        config.write_text(
            f'[node.tls]\ncertificate = "ca/peer.pem"\nkey = "ca/peer.key"\nca = "ca/authority.pem"\n'
            f'[[peers]]\nname = "archive"\nae_title = "A"\naddress = "{LOOPBACK}:{scp.port}"\ntls = true\n'
        )
        command = [sys.executable, "-m", "node", "probe", "--config", str(config)]
        words = ["archive", *(["--json"] if as_json else [])]
        shown = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
        wrong = subprocess.run([*command, "nobody"], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert wrong.returncode == 2
    assert "no peer with an address is called 'nobody'; archive" in wrong.stderr
    if as_json:
        said = json.loads(shown.stdout)
        assert said["warnings"] == []
        assert said["findings"]["accepted"][0]["sop_class"] == CTImageStorage
    else:
        assert "Segmentation Storage" in shown.stdout
        assert "storage commitment: not accepted" in shown.stdout
