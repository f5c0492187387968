"""The audit record: its messages, its file, and syslog over TLS."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path
from xml.etree import ElementTree

from node.audit import Audit, studies_of
from node.config import Audit as Settings
from tests.node.receiver import Receiver, send
from tests.node.records import after
from tests.node.routing import Bench
from tests.peers import LOOPBACK, wait_for
from tests.series import series, uid, write


def messages(data: Path) -> list[ElementTree.Element]:
    lines = [
        line for file in sorted((data / "audit").glob("*.xml.log")) for line in file.read_text().splitlines()
    ]
    return [ElementTree.fromstring(line) for line in lines]


def test_what_is_received_is_recorded_without_the_patient(tmp_path: Path) -> None:
    """Who, from where, which study, how many of which class; nothing that names the patient."""
    with Receiver(tmp_path) as receiver:
        write(tmp_path / "in", series(3, 16))
        assert send(receiver.port, "+sd", tmp_path / "in").returncode == 0
        data = receiver.spool.data
        wait_for(lambda: (data / "audit").is_dir() and len(messages(data)) == 1, what="the record")
    (message,) = messages(data)
    event = message.find("EventIdentification")
    assert event is not None
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("C", "0")
    assert event[0].get("csd-code") == "110104"
    assert [p.get("UserID") for p in message.iter("ActiveParticipant")] == ["SENDER", "AENODE"]
    (study,) = message.iter("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == uid("study")
    assert [c.get("NumberOfInstances") for c in message.iter("SOPClass")] == ["3"]
    text = next((data / "audit").iterdir()).read_text()
    assert "Test" not in text
    assert "TEST-1" not in text


def test_a_decision_is_recorded_and_names_the_patient_by_setting_only(tmp_path: Path) -> None:
    """PatientID is off by default."""
    for patient in (False, True):
        folder = tmp_path / str(patient)
        folder.mkdir()
        bench = Bench(folder)
        audit = Audit(Settings(patient=patient), bench.data, "AENODE")
        bench.router._audit = audit
        bench.receive(series(2, 16))
        bench.settle(10)
        (message,) = messages(bench.data)
        detail = next(d for d in message.iter("ParticipantObjectDetail") if d.get("type") == "decision")
        assert bytes.fromhex(str(detail.get("value"))).decode() == "rule thin CT"
        assert ("TEST-1" in ElementTree.tostring(message, "unicode")) == patient
        audit.close()
        bench.close()


def test_remote_text_cannot_forge_a_line(tmp_path: Path) -> None:
    """A line break or a tag in a title stays one message of one line."""
    audit = Audit(Settings(), tmp_path, "AENODE")
    audit.received(after(0), "A\n<AuditMessage/>", "h", studies_of([("1.2", "1.3")]), 1)
    (message,) = messages(tmp_path)
    event = message.find("EventIdentification")
    assert event is not None
    assert event.get("EventOutcomeIndicator") == "4"


def test_syslog_over_tls_gets_every_message(tmp_path: Path) -> None:
    """RFC 5425 framing, and a certificate that is checked."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    got = bytearray()
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            raw, _ = listener.accept()
            with context.wrap_socket(raw, server_side=True) as connection:
                while part := connection.recv(4096):
                    got.extend(part)

        thread = threading.Thread(target=serve)
        thread.start()
        audit = Audit(Settings(syslog=f"localhost:{port}", syslog_ca=cert), tmp_path, "AENODE")
        for number in range(3):
            audit.received(after(number), "CT1", "h", studies_of([("1.2", "1.3")]), 0)
        audit.close(10)
        thread.join(10)
    rest, found = bytes(got), []
    while rest:
        length, _, rest = rest.partition(b" ")
        found.append(rest[: int(length)])
        rest = rest[int(length) :]
    assert len(found) == 3
    assert all(m.startswith(b"<85>1 ") and b"IHE+DICOM" in m and b"<AuditMessage>" in m for m in found)
