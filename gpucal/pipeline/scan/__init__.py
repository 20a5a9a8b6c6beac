"""One scan: its solution, its tiles, its memory. Stores and commits belong in store."""
