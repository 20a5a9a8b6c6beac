"""What a site keeps: configuration, database of results, feedback. Jobs belong in queue."""
