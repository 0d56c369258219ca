"""What the machine gives: files at offsets, scratch files, processes, signals."""
