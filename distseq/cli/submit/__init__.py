"""`distseq submit`: run a config file or a command on a Ray cluster."""
