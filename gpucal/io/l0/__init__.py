"""The store of raw counts: schema, checks, reading, writing. Foreign formats belong in rooms of their own."""
