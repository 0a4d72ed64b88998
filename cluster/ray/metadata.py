"""Keys of the metadata of submitted Ray jobs."""

RUN = "distseq_run"  # the run folder on the cluster
