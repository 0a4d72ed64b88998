"""`distseq doctor`: checks an installation, a cluster and a config file, and says what to do.

A check is one function in one of the lists of machine.py, cluster.py and config_file.py. No check can stop the others.
"""
