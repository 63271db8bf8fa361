"""From what the user names to a network with weights in it."""
