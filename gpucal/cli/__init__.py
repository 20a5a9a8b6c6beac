"""The command line: arguments in, sentences and exit codes out. Work belongs in the rooms it calls."""
