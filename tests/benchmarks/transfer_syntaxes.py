"""What each lossless transfer syntax saves and costs: `python -m tests.benchmarks.transfer_syntaxes FOLDER…`

Images of a folder are decompressed where they must be, written as results are, and encoded as the outbox does
it: read, encode, decode again, compare. One line a folder and syntax; the time is the median of its images.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from node.dimse.outputs import COMPRESSED_SYNTAXES, SYNTAX_NAMES
from node.transcoding import transcode

MOST = 40  # images of a folder


def written(source: Path, folder: Path) -> Path:
    """An image uncompressed, as a worker would write it."""
    ds = pydicom.dcmread(source)
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        ds.decompress(generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / source.name
    ds.save_as(path)
    return path


def main() -> None:
    """Print a table in Markdown."""
    print("| images | size | syntax | smaller by | ms an image |\n|---|---|---|---|---|")
    for source in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            paths = [written(p, Path(folder)) for p in sorted(source.glob("*.dcm"))[:MOST]]
            first = pydicom.dcmread(paths[0], stop_before_pixels=True)
            for syntax in COMPRESSED_SYNTAXES:
                raw = encoded = 0
                seconds = []
                for path in paths:
                    begun = time.perf_counter()
                    ds = transcode(path, syntax)
                    seconds.append(time.perf_counter() - begun)
                    raw += len(pydicom.dcmread(path).PixelData)
                    encoded += len(ds.PixelData)
                size = f"{first.Rows} × {first.Columns} × {first.BitsStored}"
                speed = f"{raw / encoded:.2f} | {1000 * median(seconds):.1f}"
                print(f"| {first.Modality} | {size} | {SYNTAX_NAMES[syntax]} | {speed} |")


if __name__ == "__main__":
    main()
