"""Run a model on several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


def scores_on_threads(run, batches, times):
    """Return the scores of every batch; a thread per batch runs its batch ``times`` times."""

    def repeat(batch):
        return [run({"images": batch}) for _ in range(times)][-1]["detection_scores"]

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(repeat, batches))
