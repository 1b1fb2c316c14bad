"""Stores: database, storage, leases, audit."""
