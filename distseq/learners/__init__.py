"""One learner, and fleets of them from a config file or from Python."""
