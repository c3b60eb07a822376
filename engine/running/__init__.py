"""Jobs under way: who asked for what, what a device computes next, and what is told of it."""
