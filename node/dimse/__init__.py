"""The DICOM network: presentation contexts, statuses, associations."""
