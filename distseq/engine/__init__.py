"""The master loop, its interfaces and the journal."""
