"""Composition of the steps. Equations belong in physics and steps, bytes on disk in io."""
