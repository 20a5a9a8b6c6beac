"""Composition of the steps, streaming and batches."""
