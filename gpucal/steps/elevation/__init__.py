"""What the elevation of each dump does to its T_A*: the air in front of the source, and the sky of its reference."""
