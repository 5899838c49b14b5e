"""When this process began to work, on `time.monotonic()`: imported before anything that takes time."""

import time

AT = time.monotonic()
