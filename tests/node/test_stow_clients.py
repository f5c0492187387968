"""STOW-RS clients of others: dicomweb-client, curl and Orthanc, in the clear on loopback and over TLS."""

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session

from node.config import Peer
from node.dicomweb import stow
from node.dimse.outcome import Outcome
from tests.certificates import Authority
from tests.node.receiver import Receiver, data_set_of, encoded
from tests.node.stowing import TOKEN, TYPE, file_of, multipart, receiver, referenced
from tests.peers import LOOPBACK, Orthanc
from tests.series import series, write


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiver(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Receiver]:
    """Over TLS, with the cloud's token, and with the certificate of a scanner that has no token."""
    own = authority.issue("node")
    tls = f'tls = {{ certificate = "{own.certificate}", key = "{own.key}", ca = "{authority.ca}" }}'
    scanner = '[[peers]]\nname = "scanner"\nclient_certificate = "scanner.hospital"\n'
    digest = _digest(authority.issue("pinned").certificate)
    pinned = f'[[peers]]\nname = "pinned"\nae_title = "PINNED"\nclient_certificate = "SHA256:{digest}"\n'
    with receiver(tmp_path_factory.mktemp("secure"), web=tls, peer=scanner + pinned) as running:
        yield running


def _digest(certificate: Path) -> str:
    """As `openssl x509 -fingerprint -sha256` prints it."""
    return sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).digest().hex(":").upper()


def url_of(node: Receiver, scheme: str = "http") -> str:
    return f"{scheme}://{LOOPBACK}:{node.server.web_port}"


def test_dicomweb_client(node: Receiver) -> None:
    """It reads our answer; what it sends is in the spool."""
    images = series(3, 32, series="dicomweb-client")
    session = create_session()
    session.headers["Authorization"] = f"Bearer {TOKEN}"
    client = DICOMwebClient(url_of(node), session=session)
    said = client.store_instances(images, study_instance_uid=str(images[0].StudyInstanceUID))
    assert referenced(said) == [str(ds.SOPInstanceUID) for ds in images]
    assert {data_set_of(path) for path in node.files_of(images)} == {encoded(ds) for ds in images}


def test_orthanc_in_the_clear_and_over_tls(
    node: Receiver, secure: Receiver, authority: Authority, tmp_path: Path
) -> None:
    """Its plugin sends a series with a token, chunked or not, and over TLS with our authority."""
    header = {"HttpHeaders": {"Authorization": f"Bearer {TOKEN}"}}
    servers = {
        "chunked": {"Url": url_of(node), "ChunkedTransfers": True, **header},
        "whole": {"Url": url_of(node), "ChunkedTransfers": False, **header},
        "tls": {"Url": url_of(secure, "https"), **header},
        "stranger": {"Url": url_of(node), "HttpHeaders": {"Authorization": "Bearer wrong"}},
    }
    with Orthanc(
        tmp_path / "orthanc", DicomWeb={"Servers": servers}, HttpsCACertificates=str(authority.ca)
    ) as orthanc:
        api = f"http://{LOOPBACK}:{orthanc.http_port}"
        for name, target in (("chunked", node), ("whole", node), ("tls", secure), ("stranger", None)):
            images = series(3, 64, series=f"orthanc {name}")
            for ds in images:
                requests.post(f"{api}/instances", data=file_of(ds), timeout=30).raise_for_status()
            [found] = [
                one["ID"]
                for one in orthanc.get("/series?expand")
                if one["MainDicomTags"]["SeriesInstanceUID"] == images[0].SeriesInstanceUID
            ]
            order = json.dumps({"Resources": [found], "Synchronous": True})
            answer = requests.post(f"{api}/dicom-web/servers/{name}/stow", data=order, timeout=60)
            if target is None:
                assert answer.status_code != 200
                continue
            assert answer.status_code == 200, answer.text + orthanc.log.read_text()[-2000:]
            held = {data_set_of(path) for path in target.files_of(images)}
            assert held == {encoded(ds) for ds in images}


def test_curl_with_a_client_certificate(secure: Receiver, authority: Authority, tmp_path: Path) -> None:
    """The certificate's name or digest says which peer it is; another certificate, or none, is 401."""
    binary = shutil.which("curl")
    assert binary, "curl is missing: apt-get install curl"
    scanner = authority.issue("scanner", "DNS:scanner.hospital")
    pinned, other = authority.issue("pinned2"), authority.issue("other")
    stranger = Authority(tmp_path / "elsewhere").issue("scanner", "DNS:scanner.hospital")
    images = series(1, 16, series="curl")
    (tmp_path / "body").write_bytes(multipart([file_of(images[0])]))
    command = [binary, "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(authority.ca)]
    command += ["-H", f"Content-Type: {TYPE}", "--data-binary", f"@{tmp_path / 'body'}"]

    def status(*words: str | Path) -> str:
        done = subprocess.run(
            [*command, *map(str, words), f"{url_of(secure, 'https')}/studies"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout

    assert status() == "401"
    assert status("--cert", other.certificate, "--key", other.key) == "401"
    assert status("--cert", pinned.certificate, "--key", pinned.key) == "401"
    assert status("--cert", stranger.certificate, "--key", stranger.key) == "000"  # no session
    assert status("--cert", scanner.certificate, "--key", scanner.key) == "200"
    assert status("-H", f"Authorization: Bearer {TOKEN}") == "200"
    own = authority.folder / "pinned"
    assert status("--cert", f"{own}.pem", "--key", f"{own}.key") == "200"
    assert {i.calling_ae for i in secure.spooled() if i.sop_instance_uid == images[0].SOPInstanceUID} == {
        "scanner"
    }


def test_our_own_outbox(secure: Receiver, authority: Authority, tmp_path: Path) -> None:
    """One node's results to another."""
    (tmp_path / "token").write_text(TOKEN)
    files = write(tmp_path / "files", series(2, 32, series="ours"))
    peer = Peer.model_validate(
        {
            "name": "node",
            "dicomweb": url_of(secure, "https"),
            "tls": {"ca": authority.ca},
            "token_file": tmp_path / "token",
        }
    )
    assert [r.outcome for r in stow.store_each(peer, "AENODE", files)] == [Outcome.STORED] * 2
