"""What every study shares; a study adds its config, its plan and its summary."""
