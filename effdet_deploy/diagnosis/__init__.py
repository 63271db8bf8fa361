"""Where and why an artifact differs from its reference."""
