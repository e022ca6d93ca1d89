"""The checks of a GPU as a program: `python -m harness.bench.gpu`."""

import sys

from harness.bench.gpu import checks

sys.exit(checks.main())
