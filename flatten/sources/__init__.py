"""A reference to an image: which kind of source, and which image in it."""
