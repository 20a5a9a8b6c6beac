"""The operator's page and its live events. Results come from site, control from workers."""
