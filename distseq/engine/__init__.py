"""The master loop, the interfaces it relies on, evaluation and the journal."""
