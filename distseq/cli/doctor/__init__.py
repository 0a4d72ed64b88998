"""`distseq doctor`: what is wrong with an installation, a cluster or a job file, and what to do about it.

A check is one function in one of the lists of machine.py, cluster.py and job.py. No check can stop the others.
"""
