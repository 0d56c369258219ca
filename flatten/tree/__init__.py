"""The rules: layers applied to one tree of inodes, and edits of it. No I/O."""
