"""How good trained vectors are, and how they read as words."""
