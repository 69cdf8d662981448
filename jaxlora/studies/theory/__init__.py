"""The theory study: every claim of the one-layer theory, predicted and measured."""
