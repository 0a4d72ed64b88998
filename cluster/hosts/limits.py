"""Default time limits of hosts, in seconds; imports nothing, since the config file's schema names them."""

# Seconds a host may take to be scheduled and to load its Work. A cluster may have to start a machine and import torch (3 s per
# actor, 8 at once on two cores 15 s), so this bounds only what would otherwise hang for ever.
READY_WITHIN = 300.0
# Default seconds of silence before a host counts as hung. A healthy host answers every host_loop.IDLE = 1 s however long it
# computes, so 30 s leaves room for a machine that swaps or pauses, and still ends before a user gives up on the run.
SILENT = 30.0
