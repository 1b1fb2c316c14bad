"""Models in processes of their own: the process, its handle, and which versions belong in one."""
