"""Facts of the real world, and how they are asked."""
