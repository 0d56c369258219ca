"""Arguments in, messages and exit codes out."""
