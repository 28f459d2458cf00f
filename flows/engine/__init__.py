"""What the flows share: commands and their supervision, DVC's graph, the checkout, the GPUs.

Locks are locks of the operating system, and the supervisors of the commands inherit them: the lock
of a killed flow is released when its last command has ended, at most 10 s later.
"""
