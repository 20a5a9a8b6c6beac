"""Procedures of a telescope: pointing, focus, skydip, switched averages; physics section 11."""
