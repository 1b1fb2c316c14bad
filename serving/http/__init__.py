"""The service over HTTP: fast routes, the routes of the framework, OpenAPI, limits."""
