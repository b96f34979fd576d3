"""dlcourse: a PyTorch computer-vision course, and the small package behind its notebooks.

    import dlcourse
    profile = dlcourse.setup(seed=0)

Submodules are imported where they are used (`from dlcourse.models import create_model`), so that this import costs
little more than `import torch`.
"""

from dlcourse.runtime import Profile, expect, get_device, progress, seed_everything, setup, show

__version__ = "0.1.0"
__all__ = ["Profile", "__version__", "expect", "get_device", "progress", "seed_everything", "setup", "show"]
