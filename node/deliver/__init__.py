"""From the index's outbox to the peers: sending, backing off, and what comes after."""
