"""What is special to a hot and a cold load: T_rec in bins of frequency, and a gain that drifts between two."""
