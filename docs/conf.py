"""The documentation site: `make docs` writes it to build/docs."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import distseq  # noqa: E402 - found through the line above

project = "distseq"
author = "the distseq authors"
copyright = "the distseq authors, Apache-2.0"
version = release = distseq.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "extensions.generated", "extensions.docstrings"]
exclude_patterns = ["extensions"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"distseq {version}"
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

autodoc_member_order = "bysource"
autodoc_typehints = "none"
add_module_names = False
default_role = "code"
