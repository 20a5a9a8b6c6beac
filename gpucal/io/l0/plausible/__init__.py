"""Whether the records of a scan can be: resolution, consistency, chunks that are there."""
