"""The worker loop on a host, and the bookkeeping shared by all pools of real workers."""
