"""`distseq fetch`: copy a run folder from a Ray cluster to this machine."""
