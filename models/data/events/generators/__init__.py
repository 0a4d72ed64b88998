"""Generated event streams, each drawn from one seed."""
