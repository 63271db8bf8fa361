"""INT8 as Q/DQ pairs in the graph: which layers, on which ranges, rounded how."""
