"""The entry point of `python -m distseq`, and of the zip archive that `make zip` builds."""

import os
import sys

from distseq.cluster.system.search_path import current_folder_last

if __name__ == "__main__":
    if os.path.isfile(sys.path[0]):
        # An archive is on the path of the process that runs it; Ray's workers, which are others, take theirs from here.
        own = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.path.abspath(sys.path[0]) + (os.pathsep + own if own else "")
    # Before any package is imported.
    current_folder_last()
    from distseq.cli.main import main

    main()
