"""What other programs make of the tars that flatten writes.

``make readers`` writes a tar for each feature in each format, gives them to all readers
and writes docs/readers.md.
"""
