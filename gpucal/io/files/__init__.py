"""Files and folders of any format: atomic writes, JSON. No format of its own belongs here."""
