"""Jobs: what they say, where they wait, which follow from an event. Doing them belongs in tasks."""
