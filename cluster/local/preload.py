"""The first module that a forkserver imports, before torch and whatever else hosts need.

A forkserver is a `python -c`, which has the current folder first on its path, and imports what it preloads from there.
"""

from distseq.cluster.system.search_path import current_folder_last

current_folder_last()
