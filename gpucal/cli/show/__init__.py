"""What a terminal shows: tables, progress, JSON. Options belong in commands."""
