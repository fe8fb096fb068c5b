"""Sphinx: numpydoc for docstrings, MyST for pages, sphinx-gallery for examples. Built offline, warnings are errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mfakit

# Examples are quiet: a progress bar is none of their output, and threads are those of a small machine.
os.environ.setdefault("MPLBACKEND", "agg")
sys.path.insert(0, str(Path(__file__).parent))

project = "mfakit"
author = "The mfakit developers"
copyright = "The mfakit developers, BSD-3-Clause"
release = version = mfakit.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
    "public_names",
]
exclude_patterns = ["_build", "_templates", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # sphinx-gallery's settings hold functions

myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False  # the template of a class shows its members
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False
numpydoc_xref_param_type = False

# Every reference must resolve, but for those to other projects: the site is built without looking for these.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(numpy|sklearn|torch|pandas|scipy|matplotlib|mfakit\._\w+)\..*")]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "plot_gallery": "True",
    "show_memory": False,
    "min_reported_time": 5,
}

html_theme = "pydata_sphinx_theme"
html_title = "mfakit"
html_static_path = ["_static"]
html_css_files = ["mfakit.css"]
html_show_sourcelink = False
html_sidebars = {page: [] for page in ("index", "install", "tutorial", "which", "changelog", "search", "genindex")}
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "header_links_before_dropdown": 4,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
