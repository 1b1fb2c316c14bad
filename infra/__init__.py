"""Settings, clock, database, leases and storage."""
