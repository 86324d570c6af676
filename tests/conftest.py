"""What all tests share."""

from __future__ import annotations

import os

# Tiny models run no faster on two threads, and threads that wait for each other by spinning make a busy
# machine many times slower. Tests about threads set their number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")
