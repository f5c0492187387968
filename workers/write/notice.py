"""A small Secondary Capture that says why a series has no AI result, for sites that want to see it."""

import textwrap
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from node.entities import CONTRIBUTING_MANUFACTURER
from node.job import ProducedArtifact
from workers.write.canvas import AMBER, GREY, WHITE, font
from workers.write.capture import put_rgb
from workers.write.dressing import dress
from workers.write.history import reference_to
from workers.write.part10 import save
from workers.write.provenance import Provenance, result_uid, sources_key

SIDE = 512
_COLUMNS, _MOST_LINES = 44, 12


def write_notice(
    source: Dataset, sources: list[str], reason: str, provenance: Provenance, folder: Path, now: datetime
) -> ProducedArtifact:
    """Write the notice to `folder`/notice. `source` is one header of the series, `sources` are its UIDs."""
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = SecondaryCaptureImageStorage, "OT"
    dress(ds, "notice", source, provenance, now, "no result")
    key = sources_key(sources)
    ds.SeriesInstanceUID = result_uid("notice", provenance, reason, key, "series")
    ds.SOPInstanceUID = result_uid("notice", provenance, reason, key, "object")
    ds.InstanceNumber, ds.PatientOrientation = 1, None
    ds.SecondaryCaptureDeviceManufacturer = CONTRIBUTING_MANUFACTURER
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = f"No AI result: {reason}"[:1024]
    ds.SourceImageSequence = [reference_to(source)]
    ds.BurnedInAnnotation = "YES"
    put_rgb(ds, np.asarray(_page(reason, provenance, ds.ContentDate + ds.ContentTime)))
    return save(ds, folder, Path("notice/0001.dcm"), "notice")


def _page(reason: str, provenance: Provenance, written_at: str) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIDE, 52), fill=(38, 30, 12))
    draw.text((20, 26), "No AI result", font=font(24, bold=True), fill=AMBER, anchor="lm")
    draw.text((20, 76), f"{provenance.pipeline} has no result for this series:", font=font(17), fill=GREY)
    lines = textwrap.wrap(reason, _COLUMNS)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], "…"]
    for number, line in enumerate(lines):
        draw.text((20, 112 + number * 26), line, font=font(18), fill=WHITE)
    when = f"{written_at[:4]}-{written_at[4:6]}-{written_at[6:8]} {written_at[8:10]}:{written_at[10:12]}"
    draw.text((20, SIDE - 62), "This says nothing about the images.", font=font(17), fill=GREY)
    draw.text((20, SIDE - 34), f"{provenance.program}  ·  {when}", font=font(15), fill=GREY)
    return image
