"""Episodes on disk, and training batches streamed from them."""
