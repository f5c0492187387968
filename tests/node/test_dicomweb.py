"""STOW-RS and QIDO-RS with Orthanc: results arrive byte for byte, over TLS both ways, with a token."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner

from node import reach
from node.audit import Audit
from node.cli import aenode
from node.commands.probe import warnings_of
from node.config import Audit as AuditSettings
from node.config import Peer, Settings
from node.config_file import load
from node.deliver.proof import FindProof
from node.dicomweb.probing import probe
from node.dimse.outcome import Outcome
from node.errors import ConfigError, PeerError
from tests.certificates import Authority
from tests.node.delivering import Bench
from tests.peers import LOOPBACK, Nginx, Orthanc, free_port
from tests.series import series, uid, write


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One for all tests here, which send series of their own: Orthanc takes seconds to stop."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def peer_at(url: str, **settings: object) -> Peer:
    return Peer.model_validate({"name": "archive", "ae_title": "ORTHANC", "dicomweb": url, **settings})


def web(orthanc: Orthanc, scheme: str = "http") -> str:
    return f"{scheme}://{LOOPBACK}:{orthanc.http_port}/dicom-web"


def held(orthanc: Orthanc, series_uid: str) -> list[dict[str, object]]:
    """What Orthanc holds of a series."""
    (one,) = [
        s["ID"]
        for s in orthanc.get("/series?expand")
        if s["MainDicomTags"]["SeriesInstanceUID"] == series_uid
    ]
    found: list[dict[str, object]] = orthanc.get(f"/series/{one}/instances")
    return found


@contextmanager
def answering(
    status: int,
    body: bytes = b"",
    kind: str = "application/dicom+json",
    judge: Callable[[bytes], tuple[int, bytes] | None] = lambda _: None,
) -> Iterator[str]:
    """A server that answers alike, but what `judge` has an answer of its own to; gives its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(
                int(self.headers["Content-Length"])
            )  # some servers take nothing without one
            self.answer(*(judge(sent) or (status, body)))

        def do_GET(self) -> None:
            self.answer(status, body)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sequence(tag: str, instance: str, reason_tag: str = "", reason: int = 0) -> bytes:
    """A STOW-RS answer about one instance, in the DICOM JSON model."""
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [instance]}}
    if reason_tag:
        item[reason_tag] = {"vr": "US", "Value": [reason]}
    return json.dumps({tag: {"vr": "SQ", "Value": [item]}}).encode()


def test_results_arrive_and_are_counted_and_listed(orthanc: Orthanc, tmp_path: Path) -> None:
    """The bytes on the disk are the bytes that are stored; QIDO-RS counts and lists them."""
    images = series(4, series="counted")
    files = write(tmp_path / "files", images)
    peer = peer_at(web(orthanc))
    reach.echo(peer, "AENODE")
    results = list(reach.store_each(peer, "AENODE", files))
    assert [(r.outcome, r.status) for r in results] == [(Outcome.STORED, 0)] * 4
    study, one = str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID)
    stored = {orthanc.file(found["ID"]) for found in held(orthanc, one)}
    assert stored == {path.read_bytes() for path in files}
    assert reach.count_instances(peer, "AENODE", one, study_uid=study) == 4
    assert reach.count_instances(peer, "AENODE", uid("another"), study_uid=study) is None
    sent = {str(pydicom.dcmread(path).SOPInstanceUID) for path in files}
    assert reach.listed_instances(peer, "AENODE", [(study, one), (study, uid("none"))]) == {
        one: sent,
        uid("none"): set(),
    }
    again = list(reach.store_each(peer, "AENODE", files[:1]))
    assert again[0].outcome.kept


def test_what_is_no_dicom_does_not_hold_up_the_others(orthanc: Orthanc, tmp_path: Path) -> None:
    """One result a file, in their order."""
    good = write(tmp_path / "files", series(1, series="good"))[0]
    (tmp_path / "notes.txt").write_text("hello")
    files = [tmp_path / "notes.txt", tmp_path / "absent.dcm", good]
    outcomes = [r.outcome for r in reach.store_each(peer_at(web(orthanc)), "AENODE", files)]
    assert outcomes == [Outcome.REFUSED, Outcome.RETRY, Outcome.STORED]


def test_mutual_tls(orthanc: Orthanc, tmp_path: Path) -> None:
    """Our certificate is asked for and shown; without it, or under a wrong name, nothing is sent."""
    authority = Authority(tmp_path / "ca")
    server, own = authority.issue("server", "DNS:pacs.hospital"), authority.issue("node")
    images = series(1, series="mutual")
    files = write(tmp_path / "files", images)
    ours = {"certificate": own.certificate, "key": own.key, "ca": authority.ca}
    with Nginx(tmp_path / "proxy", orthanc, server.certificate, server.key, ca=authority.ca) as proxy:
        for tls, said in (
            (ours, "no TLS session"),
            ({**ours, "server_name": "ris.hospital"}, "no TLS session"),
            ({**ours, "ca": None, "check_name": False}, "no TLS session"),  # the system's authorities
            ({"ca": authority.ca, "check_name": False}, r"HTTP 400|no connection"),
        ):
            with pytest.raises(PeerError, match=said):
                reach.echo(peer_at(proxy.url, tls=tls), "AENODE")
        named = peer_at(proxy.url, tls={**ours, "server_name": "pacs.hospital"})
        assert [r.outcome for r in reach.store_each(named, "AENODE", files)] == [Outcome.STORED]
        unnamed = peer_at(proxy.url, tls={**ours, "check_name": False})
        study, one = str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID)
        assert reach.count_instances(unnamed, "AENODE", one, study_uid=study) == 1


def test_bearer_token(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file or the environment, read anew for each session; a wrong one is worth another try."""
    authority = Authority(tmp_path / "ca")
    server = authority.issue("server")
    token = tmp_path / "token"
    token.write_text("old\n")
    files = write(tmp_path / "files", series(1, series="token"))
    tls = {"ca": authority.ca}
    rules = 'if ($http_authorization != "Bearer s3cret") { return 401; }'
    with Nginx(tmp_path / "proxy", orthanc, server.certificate, server.key, rules=rules) as proxy:
        peer = peer_at(proxy.url, tls=tls, token_file=token)
        with pytest.raises(PeerError, match="does not accept our token") as refused:
            list(reach.store_each(peer, "AENODE", files))
        assert not refused.value.permanent
        with pytest.raises(PeerError, match="does not accept our token"):
            reach.echo(peer, "AENODE")
        token.write_text("s3cret\n")
        assert [r.outcome for r in reach.store_each(peer, "AENODE", files)] == [Outcome.STORED]
        monkeypatch.setenv("ARCHIVE_TOKEN", "s3cret")
        reach.echo(peer_at(proxy.url, tls=tls, token_env="ARCHIVE_TOKEN"), "AENODE")
        monkeypatch.delenv("ARCHIVE_TOKEN")
        with pytest.raises(PeerError, match="no token in ARCHIVE_TOKEN"):
            reach.echo(peer_at(proxy.url, tls=tls, token_env="ARCHIVE_TOKEN"), "AENODE")


def test_the_outbox_delivers_and_proves(orthanc: Orthanc, tmp_path: Path) -> None:
    """PENDING → SENT by STOW-RS → PROVEN by QIDO-RS, like any other peer."""
    bench = Bench(tmp_path, 5)
    find = FindProof(bench.index, lambda: bench.deliver, lambda: bench.now)
    audit = Audit(AuditSettings(), bench.data, "AENODE")
    bench.new_outbox(proofs={"find": find}, audit=audit)
    bench.configure(peer_at(web(orthanc), prove="find"))
    bench.queue("archive")
    bench.step()
    bench.step(60)
    assert bench.states() == ["PROVEN"] * 5
    assert len(held(orthanc, uid("study", "derived"))) == 5
    assert bench.outbox.close(30)
    bench.index.close()
    audit.close()
    (record,) = (bench.data / "audit").iterdir()
    assert LOOPBACK in record.read_text()


@pytest.mark.parametrize(
    ("status", "failure", "outcome"),
    [
        (409, 0xA700, Outcome.RETRY),
        (409, 0xC000, Outcome.REFUSED),
        (202, 0x0110, Outcome.RETRY),
        (202, 0x0122, Outcome.UNSUPPORTED),
    ],
)
def test_each_failure_has_its_outcome(tmp_path: Path, status: int, failure: int, outcome: Outcome) -> None:
    """FailureReason is judged as a status of C-STORE is."""
    files = write(tmp_path, series(1))
    instance = str(pydicom.dcmread(files[0]).SOPInstanceUID)
    with answering(status, sequence("00081198", instance, "00081197", failure)) as url:
        result = next(reach.store_each(peer_at(url), "AENODE", files))
    assert (result.outcome, result.status) == (outcome, failure)


@pytest.mark.parametrize("refusal", [415, 0xC122])
def test_a_server_that_refuses_the_syntax_gets_it_uncompressed(tmp_path: Path, refusal: int) -> None:
    """Asked once for each class in a session; the reason is told, and the part names its syntax."""
    files = write(tmp_path, series(3))
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in files]
    parts: list[bytes] = []

    def judge(sent: bytes) -> tuple[int, bytes]:
        parts.append(sent[: sent.index(b"\r\n\r\n")])
        uid = next(uid for uid in uids if uid.encode() in sent)
        if b"transfer-syntax" not in parts[-1]:
            return 200, sequence("00081199", uid)
        return (415, b"") if refusal == 415 else (409, sequence("00081198", uid, "00081197", refusal))

    with answering(500, judge=judge) as url:
        peer = peer_at(url, transfer_syntax="jpeg-ls")
        results = list(reach.store_each(peer, "AENODE", files))
    assert [r.outcome for r in results] == [Outcome.STORED] * 3
    said = "in Explicit VR Little Endian: archive accepts no CT Image Storage in JPEG-LS"
    assert {r.reason for r in results} == {f"stored (0x0000), {said}"}
    assert [b"transfer-syntax=1.2.840.10008.1.2.4.80" in part for part in parts] == [
        True,
        False,
        False,
        False,
    ]


def test_a_warning_is_kept_and_another_instance_is_not_ours(tmp_path: Path) -> None:
    """WarningReason means stored; an answer that is about something else, or unreadable, proves nothing."""
    files = write(tmp_path, series(1))
    instance = str(pydicom.dcmread(files[0]).SOPInstanceUID)
    for body, outcome in (
        (sequence("00081199", instance, "00081196", 0xB000), Outcome.WARNING),
        (sequence("00081199", "1.2.3"), Outcome.RETRY),
        (b"<html>", Outcome.RETRY),
        (b"", Outcome.RETRY),
    ):
        with answering(200, body) as url:
            assert next(reach.store_each(peer_at(url), "AENODE", files)).outcome is outcome


def test_http_errors(tmp_path: Path) -> None:
    """What was sent is refused by 4xx of its own; an ailing or absent server is worth another try."""
    files = write(tmp_path, series(1))
    for status in (400, 413, 415):
        with answering(status) as url:
            assert next(reach.store_each(peer_at(url), "AENODE", files)).outcome is Outcome.REFUSED
    for status in (302, 404, 429, 500, 503):
        with answering(status) as url, pytest.raises(PeerError, match=str(status)) as error:
            next(reach.store_each(peer_at(url), "AENODE", files))
        assert not error.value.permanent
    with pytest.raises(PeerError, match="no connection"):
        next(reach.store_each(peer_at(f"http://{LOOPBACK}:{free_port()}/"), "AENODE", files))


def test_probe(orthanc: Orthanc) -> None:
    """It takes a request without an instance, or says why not; nothing is stored by asking."""
    before = len(orthanc.instances())
    peer = peer_at(web(orthanc), address=orthanc.address, prove="commitment")
    found = probe(peer, "AENODE")
    assert (found.error, found.store_error, found.find_error) == ("", "", "")
    assert found.store and found.find and found.commitment
    assert warnings_of(found, peer, Settings()) == []
    nowhere = probe(peer_at(f"{web(orthanc)}-nowhere"), "AENODE").error
    assert "has no STOW-RS" in nowhere and "answers HTTP 404" in nowhere
    assert len(orthanc.instances()) == before


def test_probe_of_a_proxy_that_is_wary(orthanc: Orthanc, tmp_path: Path) -> None:
    """A token that may ask but not store, none at all, and TLS that does not fit: each by its name."""
    authority = Authority(tmp_path / "ca")
    server = authority.issue("server", "DNS:pacs.hospital")
    (tmp_path / "token").write_text("reader")
    rules = (
        'if ($http_authorization != "Bearer reader") { return 401; }'
        "if ($request_method = POST) { return 403; }"
    )
    with Nginx(tmp_path / "proxy", orthanc, server.certificate, server.key, rules=rules) as proxy:
        tls = {"ca": authority.ca, "server_name": "pacs.hospital"}
        reader = peer_at(proxy.url, tls=tls, token_file=tmp_path / "token", prove="find")
        found = probe(reader, "AENODE")
        assert found.find and not found.store
        [said] = warnings_of(found, reader, Settings())
        assert said == (
            "results would not arrive: archive: does not accept our token or certificate (HTTP 403)"
        )
        assert "HTTP 401" in probe(peer_at(proxy.url, tls=tls), "AENODE").error
        for wrong, why in (
            ({"ca": authority.ca}, "IP address mismatch"),
            (
                {"ca": Authority(tmp_path / "elsewhere").ca, "check_name": False},
                "its certificate is not trusted",
            ),
        ):
            error = probe(peer_at(proxy.url, tls=wrong), "AENODE").error
            assert "no TLS session" in error and why in error
        plain = proxy.url.replace("https", "http")
        assert "HTTP 400" in probe(peer_at(plain), "AENODE").error  # nginx: plain HTTP to an HTTPS port
    secure = web(orthanc, "https")
    assert "it does not speak TLS" in probe(peer_at(secure), "AENODE").error


def test_probe_command(orthanc: Orthanc, tmp_path: Path) -> None:
    """A peer of DICOMweb alone needs no AE title; the output says what cannot be known."""
    config = tmp_path / "config.toml"
    config.write_text(f'[[peers]]\nname = "archive"\ndicomweb = "{web(orthanc)}"\nprove = "find"\n')
    done = CliRunner().invoke(aenode, ["probe", "archive", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "STOW-RS: taken" in done.output
    assert "only seen by storing" in done.output


def test_a_peer_without_queries(tmp_path: Path) -> None:
    """`find = false`: whether it is back is asked by STOW-RS alone."""
    with answering(400) as url:
        peer = peer_at(url, find=False)
        reach.echo(peer, "AENODE")
        found = probe(peer, "AENODE")
        assert found.store and not found.error
        assert warnings_of(found, peer, Settings()) == []
        with pytest.raises(PeerError, match="HTTP 400"):
            reach.echo(peer_at(url), "AENODE")
    for status in (401, 404, 415, 500, 503):
        with answering(status) as url, pytest.raises(PeerError, match=str(status)):
            reach.echo(peer_at(url, find=False), "AENODE")


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    """A token in the clear, two tokens, commitment without DIMSE, and a URL with a password in it."""
    file = tmp_path / "config.toml"
    for lines, said in (
        ('dicomweb = "http://pacs/dicom-web"\ntoken_env = "T"', "https:// only"),
        ('dicomweb = "https://pacs/dicom-web"\ntoken_env = "T"\ntoken_file = "t"', "not both"),
        ('dicomweb = "https://pacs/dicom-web"\nprove = "commitment"', "no storage commitment"),
        ('dicomweb = "https://user:secret@pacs/dicom-web"', "dicomweb"),
    ):
        file.write_text(f'[[peers]]\nname = "archive"\nae_title = "A"\n{lines}\n')
        with pytest.raises(ConfigError, match=said):
            load(file)
    file.write_text(
        '[[peers]]\nname = "a"\nae_title = "A"\ndicomweb = "https://p/d"\ntoken_file = "secret/t"\n'
    )
    assert load(file).peers[0].token_file == tmp_path / "secret" / "t"
