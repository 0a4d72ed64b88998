"""Where Python looks for modules: the current folder comes last, so that no file in it hides an installed package."""

import os
import sys


def current_folder_last() -> None:
    """Move the current folder, which `python -m` and `python -c` put first on `sys.path`, to the end, or append it there.

    A user's models and data are imported from it; a file numba.py or ray.py that happens to lie in it is not.
    """
    folder = os.getcwd()
    if sys.path and sys.path[0] in ("", folder):
        del sys.path[0]
    if folder not in sys.path:
        sys.path.append(folder)
