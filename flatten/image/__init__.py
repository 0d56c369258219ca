"""An image and its layers: where their bytes come from, history, digests."""
