"""A replayed week of flights in minutes, and a pipeline that decides at that pace."""
