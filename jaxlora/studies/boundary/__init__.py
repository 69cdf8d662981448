"""The boundary study: where merged experts compose, where they do not, and why."""
