"""From a variant and weights, as the user names them, to a network with weights."""
