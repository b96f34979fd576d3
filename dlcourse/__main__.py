"""`python -m dlcourse` is the command `dlcourse`, which torchrun can start (see `training.distributed`)."""

import sys

from dlcourse.cli import main

sys.exit(main())
