"""A pool of Ray actors, and tools for a running Ray cluster."""
