"""The trial of learners before any worker starts, against plain PyTorch and on copies."""
