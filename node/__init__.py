"""The DICOM node: receives series, decides what is done with them, and delivers what comes back."""

from importlib.metadata import version

__version__ = version("aenode")
