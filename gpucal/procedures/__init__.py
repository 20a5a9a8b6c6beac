"""Fits of pointing, focus, skydip and averages to plain values. Collecting the values belongs in pipeline.reduction."""
