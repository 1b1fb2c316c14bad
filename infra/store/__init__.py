"""Where things are kept: database, storage, leases, audit."""
