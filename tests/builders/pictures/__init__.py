"""Scenes and stores from which pictures are drawn."""
