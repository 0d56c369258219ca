"""Host resources: random-access files, scratch files, processes, signals."""
