"""Millions of pictures on Ray: a plan of parts, workers that write them, Parquet files.

The plan is written once, before the work. A part is a Parquet file whose name and rows follow from
the plan, and which appears whole or not at all: whoever writes it, and however often, it is the
same. What is done is decided by the files that are there.
"""
