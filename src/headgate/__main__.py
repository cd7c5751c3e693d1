"""``python -m headgate`` is the ``headgate`` command."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # as for the command: no file of the working directory is taken for a module

from headgate.cli import main

sys.exit(main())
