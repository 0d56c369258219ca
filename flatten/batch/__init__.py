"""Many images at once: each base is read once, and what is done stays done."""
