"""Where, and why, an artifact does not do what its reference does."""
