"""A stored night delivered as if it were observed now. Calibrating it belongs in tasks."""
