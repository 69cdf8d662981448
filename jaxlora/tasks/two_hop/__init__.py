"""The two-hop world: facts, queries, people, formats."""
