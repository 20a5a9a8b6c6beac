"""What options of several commands share: lists of scans, completion of values. Commands belong in commands/."""
