"""Sequential schemes: who computes what in which round."""
