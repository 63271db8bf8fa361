"""Everything that imports torch: the network, its weights, and the graph around it."""
