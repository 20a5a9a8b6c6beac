"""One file per command: its options and what it calls. Tables and progress belong in show."""
