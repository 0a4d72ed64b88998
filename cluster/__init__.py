"""Pools of workers and the one worker loop: the only place with clocks, processes and sockets."""

if __name__ == "cluster":
    raise ImportError("import distseq.cluster, not cluster")
