"""The config file: its schema, its overrides and the strategy that it describes."""
