"""Plan a tar of a tree: its members in order, and the pieces to write. No I/O."""
