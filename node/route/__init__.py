"""From received series to jobs, and from their results to the outbox."""
