"""The ``headgate shm`` command, for the files in which processes share limits."""
