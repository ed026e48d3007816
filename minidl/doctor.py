"""`python -m minidl.doctor`: versions, hardware, problems; exits with 1 if there is one."""

import sys

from .installation import collect_config, show_config

if __name__ == "__main__":
    show_config()
    sys.exit(1 if collect_config()[1] else 0)
