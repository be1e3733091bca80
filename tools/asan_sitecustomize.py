"""Copied as sitecustomize.py into a build that stands apart (tools/asan.sh, fuzz.sh, mutants.py).

An editable install of hlconn in the running environment would come before PYTHONPATH: its finder goes.
"""

import sys

sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
