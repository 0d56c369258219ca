"""What can be seen in images: each module one view, as plain data. Nothing prints."""
