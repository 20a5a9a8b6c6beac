"""Attacks: input, files and surroundings broken in every way that we could think of, and what must come of it."""
