"""The kill script, with a few kills; run it by hand for more."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="the script forks")
def test_killed_runs_end_like_the_run_left_alone():
    script = Path(__file__).with_name("kill_resume.py")
    done = subprocess.run([sys.executable, script, "--kills", "4", "--seed", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("4 of 4 killed runs ended with the weights")
    assert not done.stderr
