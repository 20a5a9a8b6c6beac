"""Stand-ins for a device, its codec, its loss, and a strict array namespace."""
