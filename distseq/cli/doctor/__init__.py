"""`distseq doctor`: finds what is wrong with an installation, a cluster or a config file, and says what to do.

A check is one function in one of the lists of machine.py, cluster.py and job.py. No check can stop the others.
"""
