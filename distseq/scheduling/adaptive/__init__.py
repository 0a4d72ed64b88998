"""Adaptive scheduling: replays observed start-ups under every candidate and switches to the best one."""
