"""File systems and disk images, made by their own tools."""
