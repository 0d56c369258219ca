"""A tree to the ordered pieces of a tar. No I/O."""
