"""Training: the base, and many experts in one program."""
