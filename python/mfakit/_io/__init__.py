"""Files, progress, messages and the command line's arguments."""
