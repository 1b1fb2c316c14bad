"""The service: predict, label and learn over HTTP, without ever interrupting."""
