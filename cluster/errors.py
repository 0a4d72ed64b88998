"""What a pool raises, in a file of its own so that naming it costs no import."""


class PoolError(RuntimeError):
    """The pool cannot keep its promise: a bound on retries is spent, or a worker's code raised."""
