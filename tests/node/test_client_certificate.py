"""A peer's `client_certificate`: over DICOM TLS it goes with the AE title, over HTTPS with the token."""

import logging
from pathlib import Path

import pytest

from node.config import Peer
from node.dimse.tls import ClientCertificate
from node.receive.credentials import peer_of
from tests import series
from tests.certificates import Authority, Certificate
from tests.node.receiver import Receiver, send
from tests.peers import LOOPBACK, wait_for


def secured(authority: Authority, who: Certificate) -> list[str]:
    """DCMTK's options for TLS with a certificate."""
    return ["+tls", str(who.key), str(who.certificate), "+cf", str(authority.ca)]


def test_a_title_that_is_bound_to_a_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another certificate of the same authority, or none, may not call itself by it; its own may."""
    bound = '[[peers]]\nname = "ct"\nae_title = "CT1"\nclient_certificate = "peer"\n'
    series.write(tmp_path / "in", series.series(1, 16, series="bound"))
    authority = Authority(tmp_path / "ca")
    node, own, other = (authority.issue(name) for name in ("node", "peer", "other"))
    two_ports = (
        f'[node.tls]\nbind = "{LOOPBACK}:0"\nca = "{authority.ca}"\n'
        f'certificate = "{node.certificate}"\nkey = "{node.key}"'
    )
    with Receiver(tmp_path, two_ports, bound) as receiver, caplog.at_level(logging.WARNING):
        secure, plain = receiver.server.tls_port or 0, receiver.port
        for port, words in (
            (secure, secured(authority, other)),
            (plain, []),
        ):
            caplog.clear()
            refused = send(port, *words, "-aet", "CT1", "+sd", tmp_path / "in")
            assert refused.returncode != 0
            assert "Calling AE Title Not Recognized" in refused.stderr
            wait_for(lambda: "bound to another certificate" in caplog.text, what="the reason in the log")
        assert receiver.spooled() == []
        assert send(secure, *secured(authority, own), "-aet", "CT1", "+sd", tmp_path / "in").returncode == 0
        assert send(secure, *secured(authority, other), "+sd", tmp_path / "in").returncode == 0  # SENDER
        assert len(receiver.spooled()) == 1


def test_a_peer_with_a_token_and_a_certificate_must_bring_both(tmp_path: Path) -> None:
    """One of them is not enough; a peer that has neither setting is never meant."""
    (tmp_path / "token").write_text("t")
    own, other = (ClientCertificate(64 * digit, frozenset({f"host-{digit}"})) for digit in "ab")
    token = {"receive_token_file": tmp_path / "token"}
    both = Peer.model_validate({"name": "both", "client_certificate": f"sha256:{64 * 'a'}", **token})
    modality = Peer.model_validate({"name": "modality", "ae_title": "CT"})
    named = Peer.model_validate({"name": "named", "client_certificate": "host-b"})
    peers = [modality, both, named]
    assert peer_of(peers, "Bearer t", own) is both
    assert peer_of(peers, "Bearer x", own) is None
    assert peer_of(peers, "", own) is None
    assert peer_of(peers, "Bearer t", None) is None
    assert peer_of(peers, "Bearer t", other) is named
    assert peer_of(peers, "", other) is named
