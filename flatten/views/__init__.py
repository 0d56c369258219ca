"""Views of images as plain data, one module for each; printing is up to ``cli``."""
