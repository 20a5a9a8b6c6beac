"""Opacity tables: files, import, building, choice. Evaluating them belongs in physics.atm."""
