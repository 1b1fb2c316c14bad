"""The processes of the service: the application, its workers, and how they start and end."""
