"""The one way in: what all importers of raw data share. How one format is laid out belongs in its own folder."""
