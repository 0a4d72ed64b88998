"""A worker pool on local processes."""
