"""Results as DICOM objects: the derived series, the captures, and the gate each object passes."""
