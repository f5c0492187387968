"""The workers: read a frozen series, run a model on it, and encode what it says."""
