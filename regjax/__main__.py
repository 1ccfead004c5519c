"""`python -m regjax`."""

import sys

from regjax.cli import main

sys.exit(main())
