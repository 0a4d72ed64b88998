"""A worker pool on Ray actors, and tools for a running Ray cluster."""
