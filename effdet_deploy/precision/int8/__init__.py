"""INT8 as Q/DQ pairs in the graph: choice of layers, ranges of values, rounding of weights."""
