"""The audit record: who sent what, what was decided, what was returned (DICOM PS3.15 A.5, IHE ATNA).

Each event is one XML message on one line of `audit/<day>.xml.log` in the data folder, appended in one
write and synchronised; by setting it also goes to a syslog server over TLS (RFC 5424, RFC 5425).
Patients are left out unless `audit.patient` is set; studies are named by their UIDs.
"""

import logging
import os
import queue
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from node.config import Audit as AuditSettings
from node.config import host_port

log = logging.getLogger("aenode.audit")

_PRIORITY = 85  # facility 10 (security), severity 5 (notice): PS3.15 A.6
_WAITING = 10_000  # messages for syslog; older ones stay in the file alone
_RETRY_SECONDS = 5.0
_TIMEOUT_SECONDS = 10.0
TRANSFERRED = ("110104", "DICOM Instances Transferred")
ACCESSED = ("110103", "DICOM Instances Accessed")
SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = 0, 4, 8

Studies = Mapping[str, Mapping[str, int]]  # StudyInstanceUID → SOPClassUID → number of instances


class Audit:
    """Writes messages for one process. Safe to use from its threads; never raises for want of a server."""

    def __init__(self, settings: AuditSettings, data: Path, own_ae: str) -> None:
        self._settings = settings
        self._folder = data / "audit"
        self._own_ae = own_ae
        self._syslog = Syslog(settings) if settings.syslog else None

    def close(self, seconds: float = 5) -> None:
        """Send what waits for syslog, for so long."""
        if self._syslog is not None:
            self._syslog.close(seconds)

    def received(self, at: datetime, calling_ae: str, host: str, studies: Studies, refused: int) -> None:
        """An association that brought instances has ended (A.5.3.7, the destination's view)."""
        outcome = MINOR_FAILURE if refused else SUCCESS
        self._write(at, TRANSFERRED, "C", outcome, (calling_ae, host), (self._own_ae, ""), studies)

    def returned(self, at: datetime, peer_ae: str, host: str, studies: Studies, failed: int) -> None:
        """Results were sent to a peer (A.5.3.7, the source's view)."""
        outcome = MINOR_FAILURE if failed else SUCCESS
        self._write(at, TRANSFERRED, "R", outcome, (self._own_ae, ""), (peer_ae, host), studies)

    def decided(
        self, at: datetime, study_uid: str, series_uid: str, reason: str, patient_id: str = ""
    ) -> None:
        """The rules were asked about a series (A.5.3.6); `reason` is what its timeline says."""
        details = {"SeriesInstanceUID": series_uid, "decision": reason}
        studies: Studies = {study_uid: {}}
        self._write(at, ACCESSED, "R", SUCCESS, (self._own_ae, ""), None, studies, details, patient_id)

    def _write(
        self,
        at: datetime,
        event: tuple[str, str],
        action: str,
        outcome: int,
        source: tuple[str, str],
        destination: tuple[str, str] | None,
        studies: Studies,
        details: Mapping[str, str] | None = None,
        patient_id: str = "",
    ) -> None:
        message = Element("AuditMessage")
        identification = SubElement(
            message,
            "EventIdentification",
            EventActionCode=action,
            EventDateTime=at.isoformat(timespec="milliseconds"),
            EventOutcomeIndicator=str(outcome),
        )
        _code(identification, "EventID", *event)
        _participant(message, source, "110153", "Source Role ID")
        if destination is not None:
            _participant(message, destination, "110152", "Destination Role ID")
        SubElement(message, "AuditSourceIdentification", AuditSourceID=self._own_ae)
        for study_uid, classes in studies.items():
            _study(message, study_uid, classes, details or {})
        if patient_id and self._settings.patient:
            _patient(message, patient_id)
        self._append(at, tostring(message, encoding="unicode"))

    def _append(self, at: datetime, text: str) -> None:
        line = text.replace("\n", "&#10;").replace("\r", "&#13;")
        if self._settings.file:
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
                path = self._folder / f"{at:%Y-%m-%d}.xml.log"
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
                try:
                    os.write(descriptor, line.encode() + b"\n")
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                # Receiving and delivering go on: losing an instance is worse than losing its record.
                log.error("the audit record could not be written: %s", error.strerror)  # noqa: TRY400
        if self._syslog is not None:
            self._syslog.put(at, line)


def studies_of(pairs: list[tuple[str, str]]) -> Studies:
    """Counts from pairs of StudyInstanceUID and SOPClassUID."""
    studies: dict[str, Counter[str]] = {}
    for study_uid, sop_class_uid in pairs:
        studies.setdefault(study_uid, Counter())[sop_class_uid] += 1
    return studies


def _code(parent: Element, name: str, value: str, meaning: str, system: str = "DCM") -> None:
    words = {"csd-code": value, "codeSystemName": system, "originalText": meaning}
    SubElement(parent, name, words)


def _participant(message: Element, who: tuple[str, str], role: str, meaning: str) -> None:
    ae_title, host = who
    words = {"UserID": ae_title or "unknown", "AlternativeUserID": f"AETITLES={ae_title}"}
    words |= {"UserIsRequestor": "false"}
    if host:
        words |= {"NetworkAccessPointID": host, "NetworkAccessPointTypeCode": "2"}
    _code(SubElement(message, "ActiveParticipant", words), "RoleIDCode", role, meaning)


def _study(message: Element, study_uid: str, classes: Mapping[str, int], details: Mapping[str, str]) -> None:
    words = {"ParticipantObjectID": study_uid, "ParticipantObjectTypeCode": "2"}
    study = SubElement(
        message, "ParticipantObjectIdentification", words | {"ParticipantObjectTypeCodeRole": "3"}
    )
    _code(study, "ParticipantObjectIDTypeCode", "110180", "Study Instance UID")
    for name, value in details.items():
        encoded = value.encode().hex()
        SubElement(study, "ParticipantObjectDetail", {"type": name, "value": encoded})
    if classes:
        description = SubElement(study, "ParticipantObjectDescription")
        for uid, count in sorted(classes.items()):
            SubElement(description, "SOPClass", {"UID": uid, "NumberOfInstances": str(count)})


def _patient(message: Element, patient_id: str) -> None:
    words = {"ParticipantObjectID": patient_id, "ParticipantObjectTypeCode": "1"}
    patient = SubElement(
        message, "ParticipantObjectIdentification", words | {"ParticipantObjectTypeCodeRole": "1"}
    )
    _code(patient, "ParticipantObjectIDTypeCode", "2", "Patient Number", "RFC-3881")


class Syslog:
    """Messages to a syslog server over TLS, on a thread of its own; kept and tried again while it is away."""

    def __init__(self, settings: AuditSettings) -> None:
        assert settings.syslog is not None
        self._address = host_port(settings.syslog)
        self._tls = ssl.create_default_context(cafile=settings.syslog_ca)
        self._waiting: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="syslog", daemon=True)
        self._thread.start()

    def put(self, at: datetime, message: str) -> None:
        """Offer a message; where too many wait, it stays in the file alone."""
        header = f"<{_PRIORITY}>1 {at.isoformat(timespec='milliseconds')} {socket.gethostname()} aenode "
        framed = f"{header}{os.getpid()} IHE+DICOM - ".encode() + b"\xef\xbb\xbf" + message.encode()
        try:
            self._waiting.put_nowait(str(len(framed)).encode() + b" " + framed)
        except queue.Full:
            log.error("syslog takes no audit messages; one is in the file only")  # noqa: TRY400

    def close(self, seconds: float) -> None:
        """Send what waits, for so long."""
        self._stopping.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        connection: ssl.SSLSocket | None = None
        message: bytes | None = None
        while True:
            if message is None:
                try:
                    message = self._waiting.get(timeout=0.2)
                except queue.Empty:
                    if self._stopping.is_set():
                        break
                    continue
            try:
                connection = connection or self._connect()
                connection.sendall(message)
                message = None
            except OSError as error:
                log.warning("the audit server cannot be reached: %s", type(error).__name__)
                if connection is not None:
                    connection.close()
                    connection = None
                if self._stopping.wait(_RETRY_SECONDS):
                    break
        if connection is not None:
            connection.close()

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._address, _TIMEOUT_SECONDS)
        try:
            return self._tls.wrap_socket(plain, server_hostname=self._address[0])
        except OSError:
            plain.close()
            raise
