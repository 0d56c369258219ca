"""The outputs: each appears under its name complete, or not at all."""
