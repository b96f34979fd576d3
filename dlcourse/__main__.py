"""`python -m dlcourse` is the command `dlcourse`, which torchrun can start: torchrun --nproc-per-node 2 -m dlcourse train."""

import sys

from dlcourse.cli import main

sys.exit(main())
