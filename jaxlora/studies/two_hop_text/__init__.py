"""The two-hop study on text models: checkpoints and adapters that people have."""
