"""The command `dlcourse`: what the package does, from a shell.

    dlcourse train --config fashion-mini
    torchrun --nproc-per-node 2 -m dlcourse -- train --config fashion-mini      the same on two processes
    dlcourse evaluate
    dlcourse export --kind int8
    dlcourse predict shoe.jpg photos
    dlcourse serve --monitor logs
    dlcourse doctor --data photos --model.name resnet18 --optimizer.lr 0.1

A config is a YAML file of the fields of `dlcourse.experiment.Experiment`; flags change single values. What was trained
last is what is evaluated, exported, asked and served, unless --run or --model names another.
Exit status: 0 well, 1 sick or failed, 2 not understood, 130 ended by Ctrl-C, 141 when nobody reads on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status (see the module's text)."""
    from dlcourse.commands import COMMANDS, make_parser
    from dlcourse.experiment.config import ConfigError

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = "dlcourse"
    try:
        given = make_parser(arguments[:1]).parse_args(arguments)
        name, options = f"dlcourse {given.command}", given[given.command]
        return COMMANDS[given.command][0](options, arguments)
    except ConfigError as error:
        commands = [word for word in arguments[:1] if word in COMMANDS]
        name = " ".join(["dlcourse", *commands])
        print(f"{name}: {error}\nSee {name} --help", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{name}: ended by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads the output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written goes nowhere
        return 141
    except Exception as error:
        if os.environ.get("DLCOURSE_TRACEBACK"):
            raise
        known = isinstance(error, ValueError | OSError | RuntimeError | ImportError)
        text = str(error) if known else f"{type(error).__name__}: {error} (DLCOURSE_TRACEBACK=1 shows where)"
        print(f"{name}: {text or type(error).__name__}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
