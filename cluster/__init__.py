"""Worker pools and their worker loop; the only folder that uses clocks, processes and sockets."""

if __name__ == "cluster":
    raise ImportError("import distseq.cluster, not cluster")
