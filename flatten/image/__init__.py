"""The image model: layers and the source of their bytes, history, digests."""
