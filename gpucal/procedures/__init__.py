"""Fits of pointing, focus, skydip and averages to plain values. Gathering the values belongs in pipeline.reduction."""
