"""Detection in millions of pictures on Ray: a plan of parts, workers, and Parquet files.

The plan is written once, before the work. A part is a Parquet file whose name and rows follow from
the plan; it appears whole or not at all, and is the same whichever worker writes it and however
often. The files that exist show which parts are done.
"""
