"""The config file: its schema, options that override it, and the scheduling strategy that it describes."""
