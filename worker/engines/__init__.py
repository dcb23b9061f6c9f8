"""What samples: engines behind one protocol."""

import os

# Read once, when torch's OpenMP is loaded. Threads that spin while they wait for each other fall to a thirtieth of
# their speed as soon as the web server or PostgreSQL takes one of the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
