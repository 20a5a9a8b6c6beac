"""What a site keeps: configuration, results and their logs, pictures, feedback. Jobs belong in queue."""
