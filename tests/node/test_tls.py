"""DICOM TLS with DCMTK on the other side, in both directions, and what is refused."""

import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from node.config import Peer, PeerTLS
from node.config_file import load
from node.dimse import contexts
from node.dimse.outcome import Outcome
from node.dimse.scu import echo, store_batch
from node.dimse.tls import CIPHERS, SecureConnection, TLSFilesError, requestor_context
from node.errors import ConfigError, PeerError
from tests import series
from tests.certificates import Authority, Certificate
from tests.node.hostile import associate_rq
from tests.node.receiver import Receiver, send
from tests.peers import LOOPBACK, StoreSCP, wait_for

PROFILES = ["+py", "+px", "+pz"]


@dataclass(frozen=True)
class Trust:
    """The certificates of one hospital, and of somebody else."""

    authority: Authority
    node: Certificate
    peer: Certificate
    stranger: Certificate


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "hospital")
    other = Authority(folder / "elsewhere")
    return Trust(authority, authority.issue("node"), authority.issue("peer"), other.issue("stranger"))


def table(trust: Trust, **more: object) -> str:
    """The [node.tls] table."""
    lines = [
        "[node.tls]",
        f'certificate = "{trust.node.certificate}"',
        f'key = "{trust.node.key}"',
        f'ca = "{trust.authority.ca}"',
        *(f"{name} = {str(value).lower()}" for name, value in more.items()),
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def receiver(trust: Trust, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One that speaks TLS only, and asks for a client certificate."""
    with Receiver(tmp_path_factory.mktemp("receiver"), table(trust)) as running:
        yield running


def secured(trust: Trust, who: Certificate) -> list[str]:
    """DCMTK's options for TLS with a certificate."""
    return ["+tls", str(who.key), str(who.certificate), "+cf", str(trust.authority.ca)]


@contextmanager
def session_with(receiver: Receiver, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A TLS session with the receiver."""
    with (
        socket.create_connection((LOOPBACK, receiver.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as session,
    ):
        yield session


def peer_at(port: int, **tls: object) -> Peer:
    return Peer.model_validate(
        {"name": "archive", "ae_title": "ARCHIVE", "address": f"{LOOPBACK}:{port}", "tls": tls or True}
    )


def ours(trust: Trust, **more: object) -> dict[str, object]:
    """A peer's TLS settings with our certificate."""
    return {
        "certificate": trust.node.certificate,
        "key": trust.node.key,
        "ca": trust.authority.ca,
        **more,
    }


# --- as acceptor ---


@pytest.mark.parametrize("profile", PROFILES)
def test_dcmtk_sends_over_tls(receiver: Receiver, trust: Trust, tmp_path: Path, profile: str) -> None:
    """Every BCP 195 profile of DCMTK delivers a series whole."""
    images = series.series(3, 128, series=profile)
    series.write(tmp_path, images)
    sent = send(receiver.port, *secured(trust, trust.peer), profile, "+sd", tmp_path)
    assert sent.returncode == 0, sent.stderr
    kept = {ds.SOPInstanceUID: ds for ds in map(dcmread, receiver.files_of(images))}
    assert len(kept) == 3
    assert all(kept[ds.SOPInstanceUID] == Dataset(ds) for ds in images)


def test_what_is_refused(
    receiver: Receiver, trust: Trust, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Plaintext, no client certificate, and one of another authority; the log says which."""
    series.write(tmp_path, series.series(1, 16, series="refused"))
    before = len(receiver.spooled())
    tls = secured(trust, trust.peer)
    for words, said in (
        ([], "it does not speak TLS"),
        (["+tla", *tls[3:]], "it has no client certificate"),
        (secured(trust, trust.stranger), "its certificate is not trusted"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert send(receiver.port, *words, "+sd", tmp_path).returncode != 0
            wait_for(lambda said=said: said in caplog.text, what=said)
    assert len(receiver.spooled()) == before


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_client_certificate(
    receiver: Receiver, trust: Trust, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """A client without a certificate gets no session, whatever the version."""
    context = ssl.create_default_context(cafile=trust.authority.ca)
    context.minimum_version = context.maximum_version = version
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ssl.SSLError),
        session_with(receiver, context) as session,
    ):
        session.sendall(b"\1")
        assert session.recv(1)
    wait_for(lambda: "it has no client certificate" in caplog.text)


def test_old_versions_and_weak_suites_are_refused(receiver: Receiver, trust: Trust) -> None:
    """Nothing below TLS 1.2, and nothing without forward secrecy and authenticated encryption."""
    for options in (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-cipher", "ECDHE+AES:!AESGCM"]):
        command = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{receiver.port}", *options]
        own = ["-cert", str(trust.peer.certificate), "-key", str(trust.peer.key)]
        asked = subprocess.run([*command, *own], input=b"", capture_output=True, timeout=30, check=False)
        assert asked.returncode != 0, asked.stdout
    assert {suite["name"] for suite in requestor_context(PeerTLS()).get_ciphers()} == {
        *("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"),
        *(
            f"ECDHE-{key}-AES{bits}"
            for key in ("ECDSA", "RSA")
            for bits in ("256-GCM-SHA384", "128-GCM-SHA256")
        ),
    }, CIPHERS


def test_client_certificate_may_be_left_out_by_setting(trust: Trust, tmp_path: Path) -> None:
    """require_client_certificate = false takes a client without one, but none of another authority."""
    images = series.series(1, 16, series="optional")
    series.write(tmp_path / "in", images)
    with Receiver(tmp_path, table(trust, require_client_certificate=False)) as receiver:
        context = ssl.create_default_context(cafile=trust.authority.ca)
        with session_with(receiver, context) as session:
            assert session.version() == "TLSv1.3"
        strange = secured(trust, trust.stranger)
        assert send(receiver.port, *strange, "+sd", tmp_path / "in").returncode != 0


def test_both_ports(trust: Trust, tmp_path: Path) -> None:
    """With node.tls.bind the clear and the secured port work side by side, and do not mix."""
    series.write(tmp_path / "in", series.series(1, 16))
    with Receiver(tmp_path, table(trust) + f'\nbind = "{LOOPBACK}:0"') as receiver:
        secure = receiver.server.tls_port
        assert secure is not None
        assert secure != receiver.port
        tls = secured(trust, trust.peer)
        assert send(receiver.port, "+sd", tmp_path / "in").returncode == 0
        assert send(secure, *tls, "+sd", tmp_path / "in").returncode == 0
        assert send(secure, "+sd", tmp_path / "in").returncode != 0
        assert send(receiver.port, *tls, "+sd", tmp_path / "in").returncode != 0
        receiver.wait_indexed(1)


def test_a_renewed_certificate_is_taken_up(trust: Trust, tmp_path: Path) -> None:
    """Without a restart; files that cannot be used leave the old ones in force."""
    tls = tmp_path / "tls"
    tls.mkdir()
    for source, name in ((trust.node.certificate, "node.pem"), (trust.node.key, "node.key")):
        shutil.copy(source, tls / name)
    settings = f'[node.tls]\ncertificate = "tls/node.pem"\nkey = "tls/node.key"\nca = "{trust.authority.ca}"'
    with Receiver(tmp_path, settings) as receiver:

        def shown() -> bytes | None:
            context = ssl.create_default_context(cafile=trust.authority.ca)
            context.load_cert_chain(trust.peer.certificate, trust.peer.key)
            with session_with(receiver, context) as session:
                return session.getpeercert(binary_form=True)

        def der(made: Certificate) -> bytes:
            return ssl.PEM_cert_to_DER_cert(made.certificate.read_text())

        assert shown() == der(trust.node)
        (tls / "node.key").write_text("half written")
        renewed = trust.authority.issue("renewed")
        shutil.copy(renewed.certificate, tls / "node.pem")
        assert shown() == der(trust.node)
        shutil.copy(renewed.key, tls / "node.key")
        wait_for(lambda: shown() == der(renewed), seconds=10)


def test_a_stop_ends_a_secured_association_with_an_abort(trust: Trust, tmp_path: Path) -> None:
    """What is written after the stop still goes out in TLS, so that the peer learns why."""
    with Receiver(tmp_path, table(trust)) as receiver:
        context = ssl.create_default_context(cafile=trust.authority.ca)
        context.load_cert_chain(trust.peer.certificate, trust.peer.key)
        with session_with(receiver, context) as session:
            session.sendall(associate_rq([(contexts.VERIFICATION, [ImplicitVRLittleEndian])]))
            assert session.recv(1) == b"\2"
            receiver.stop.set()
            abort = b"\7\0\0\0\0\4\0\0\0\0"
            answer = b""
            while not answer.endswith(abort):
                more = session.recv(4096)
                assert more, "closed without an abort"
                answer += more


# --- as requestor ---


@pytest.mark.parametrize("profile", PROFILES)
def test_dcmtk_receives_over_tls(trust: Trust, tmp_path: Path, profile: str) -> None:
    """Every BCP 195 profile of DCMTK takes a series from us, our certificate required."""
    files = series.write(tmp_path / "files", series.series(3))
    with StoreSCP(tmp_path / "scp", *secured(trust, trust.peer), profile) as scp:
        peer = peer_at(scp.port, **ours(trust))
        assert [r.outcome for r in store_batch(peer, "AENODE", files)] == [Outcome.STORED] * 3
        stripped = peer_at(scp.port, ca=trust.authority.ca)
        with pytest.raises(PeerError, match=r"it may not trust our certificate|TLS"):
            store_batch(stripped, "AENODE", files)
    assert len(list(scp.received.iterdir())) == 3


def test_the_peer_must_be_who_it_should_be(
    trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an authority that we trust, and under the name that we call; check_name can leave the latter out."""
    named = trust.authority.issue("named", "DNS:pacs.hospital")
    with StoreSCP(tmp_path / "own", *secured(trust, named)) as scp:
        for tls in (ours(trust), ours(trust, server_name="ris.hospital"), {}):
            with pytest.raises(PeerError, match="TLS") as untrusted:
                echo(peer_at(scp.port, **tls), "AENODE")
            assert not untrusted.value.permanent
        echo(peer_at(scp.port, **ours(trust, server_name="pacs.hospital")), "AENODE")
        echo(peer_at(scp.port, **ours(trust, check_name=False)), "AENODE")
    with StoreSCP(tmp_path / "open", *secured(trust, trust.peer), "--ignore-peer-cert") as scp:
        monkeypatch.setenv("SSL_CERT_FILE", str(trust.authority.ca))
        echo(peer_at(scp.port), "AENODE")  # the system's authorities


def test_a_peer_with_tls_is_never_spoken_to_in_the_clear(tmp_path: Path, trust: Trust) -> None:
    """A peer that does not speak TLS gets nothing."""
    files = series.write(tmp_path / "files", series.series(1))
    with StoreSCP(tmp_path / "scp") as scp, pytest.raises(PeerError, match="TLS"):
        store_batch(peer_at(scp.port, **ours(trust)), "AENODE", files, timeout=5)
    assert list(scp.received.iterdir()) == []


# --- settings ---


def test_a_peer_takes_the_nodes_files_unless_it_names_others(tmp_path: Path) -> None:
    """Paths are relative to the settings file; true and a table are both allowed."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[node.tls]\ncertificate = "a.pem"\nkey = "a.key"\nca = "ca.pem"\n'
        '[[peers]]\nname = "one"\nae_title = "ONE"\ntls = true\n'
        '[[peers]]\nname = "two"\nae_title = "TWO"\ntls = { certificate = "/b.pem", ca = "b/ca.pem" }\n'
        '[[peers]]\nname = "three"\nae_title = "THREE"\ntls = false\n'
    )
    one, two, three = (peer.tls for peer in load(file).peers)
    assert one == PeerTLS(certificate=tmp_path / "a.pem", key=tmp_path / "a.key", ca=tmp_path / "ca.pem")
    assert two == PeerTLS(certificate=Path("/b.pem"), key=None, ca=tmp_path / "b/ca.pem")
    assert three is None


def test_mistakes_are_named_with_what_is_allowed(tmp_path: Path) -> None:
    """A client certificate needs an authority; a key needs a certificate; unknown settings list the known."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[node.tls]\ncertificate = "a.pem"\n'
        '[[peers]]\nname = "one"\nae_title = "ONE"\ntls = { key = "k" }\n'
        '[[peers]]\nname = "two"\nae_title = "TWO"\ntls = { cert = "k" }\n'
    )
    with pytest.raises(ConfigError) as refused:
        load(file)
    problems = {p.line: p for p in refused.value.problems}
    assert "require_client_certificate needs ca" in problems[1].message
    assert problems[6].setting == "peers[1].tls"
    assert problems[6].message == "key needs its certificate"
    assert "allowed: certificate, key, ca, server_name, check_name" in problems[10].message


def test_files_that_cannot_be_used_are_named(trust: Trust, tmp_path: Path) -> None:
    """Absent, of another key, or locked with a password: a sentence, and never a question on the terminal."""
    locked = tmp_path / "locked.key"
    command = [
        "openssl",
        "ec",
        "-in",
        str(trust.node.key),
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True, capture_output=True)
    for key, said in (
        (tmp_path / "none.key", "none.key cannot be read: No such file"),
        (trust.peer.key, "key values mismatch"),
        (locked, "no certificate with its unencrypted key"),
    ):
        with pytest.raises(TLSFilesError, match=said):
            requestor_context(PeerTLS(certificate=trust.node.certificate, key=key))
    with pytest.raises(TLSFilesError, match="no certificates of authorities"):
        requestor_context(PeerTLS(ca=trust.node.key))


def test_a_read_that_waits_is_ended_from_another_thread(trust: Trust) -> None:
    """`shutdown` wakes one read; closing twice is harmless."""
    ours_end, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trust.node.certificate, trust.node.key)
    connection = SecureConnection(ours_end, context)
    connection.settimeout(30)
    waker = threading.Timer(0.05, connection.shutdown, (0,))
    waker.start()
    assert connection.recv_into(memoryview(bytearray(8))) == 0
    connection.settimeout(0.05)
    with pytest.raises(TimeoutError):
        connection.recv_into(memoryview(bytearray(8)))
    connection.close()
    connection.close()
    connection.shutdown(0)
    theirs.close()
