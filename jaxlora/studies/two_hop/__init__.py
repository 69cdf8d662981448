"""The two-hop study: bases, libraries, questions, rows and verdicts."""
