"""Apply layers to one tree of inodes, and edit that tree. No I/O."""
