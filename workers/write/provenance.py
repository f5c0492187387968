"""Who made a result and with what: its deterministic UIDs and its equipment entry."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version as installed_version

from pydicom import Dataset
from pydicom.uid import UID

from node.entities import CONTRIBUTING_MANUFACTURER

NOT_FOR_DIAGNOSIS = "not for primary diagnosis"
# Raised when the same model and settings give other pixels than before, so that the UIDs change too.
RECIPE = 1
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, CONTRIBUTING_MANUFACTURER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything but the source that decides what a result holds."""

    pipeline: str
    model: str  # name in the zoo
    version: str
    weights_sha256: str
    strength: float
    limit_sigma: float
    false_positive_rate: float | None = None  # share of normal pixels above an anomaly model's threshold
    marks: str = "unlike"  # how a marked region differs from normal: "brighter", "darker"
    supersedes: tuple[str, ...] = ()  # SeriesInstanceUIDs of results of earlier revisions of the source
    domain: str = ""  # what an amber domain gate noticed; every object carries it
    part: str = ""  # which volume of the source series, where that has several
    computed: str = ""  # how, where it is not the reference: "openvino", "bfloat16" or both
    program: str = f"{CONTRIBUTING_MANUFACTURER} {installed_version(CONTRIBUTING_MANUFACTURER)}"

    @property
    def algorithm(self) -> str:
        """Name and version of the model, as people read it."""
        return f"{self.model} {self.version}".strip()

    @property
    def weights(self) -> str:
        """The weights hash, short enough for an LO value."""
        return f"weights sha256 {self.weights_sha256[:16]}"


def sources_key(sources: Iterable[str]) -> str:
    """One word for a set of source instances, whatever their order."""
    return sha256(",".join(sorted(sources)).encode()).hexdigest()


def result_uid(role: str, provenance: Provenance, settings: str, sources: str, part: str) -> UID:
    """The UID of one result object: a version 5 UUID under 2.25 (PS3.5 B.2).

    The same role, model, weights, settings and `sources_key` always give the same UID, any other gives
    another. `part` tells the objects of one result apart.
    """
    made_of = (
        role,
        provenance.model,
        provenance.version,
        provenance.weights_sha256,
        settings,
        f"recipe {RECIPE}",
        sources,
        part,
        *((provenance.computed,) if provenance.computed else ()),
    )
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(made_of)).int}")


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def contributing_equipment(provenance: Provenance, local_now: datetime, what: str) -> Dataset:
    """Our item of the ContributingEquipmentSequence (PS3.3 C.12.1): the loop guard looks for it."""
    item = Dataset()
    item.Manufacturer = CONTRIBUTING_MANUFACTURER
    item.ManufacturerModelName = provenance.algorithm[:64]
    item.SoftwareVersions = [provenance.program[:64], provenance.weights]
    item.ContributionDateTime = local_now.strftime("%Y%m%d%H%M%S.%f%z")
    description = f"{what} by pipeline {provenance.pipeline}; AI, {NOT_FOR_DIAGNOSIS}"
    if provenance.computed:
        description += f"; computed in {provenance.computed}"
    if provenance.part:
        description += f"; of {provenance.part}"
    if provenance.domain:
        description += f"; {provenance.domain}"
    item.ContributionDescription = description[:1024]
    item.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    return item


def put_superseded(ds: Dataset, provenance: Provenance) -> None:
    """Name the series that this result supersedes (Related Series Sequence, PS3.3 C.7.3.1)."""
    items = list(ds.get("RelatedSeriesSequence", []))
    for series_uid in provenance.supersedes:
        item = Dataset()
        item.StudyInstanceUID = ds.StudyInstanceUID
        item.SeriesInstanceUID = series_uid
        item.PurposeOfReferenceCodeSequence = [
            code("supersedes", "99AENODE", "Supersedes the related series")
        ]
        items.append(item)
    if provenance.supersedes:
        ds.RelatedSeriesSequence = items
