"""The theory study: every claim of the theory, predicted and measured."""
