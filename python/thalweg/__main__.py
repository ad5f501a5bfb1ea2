"""`python -m thalweg` is the `thalweg` command."""

import sys

from .cli import main

sys.exit(main())
