"""What ``gpucal inspect`` finds out about a store. What the other commands print belongs beside this folder."""
