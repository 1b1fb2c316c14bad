"""Clients of the service; they import none of the server."""
