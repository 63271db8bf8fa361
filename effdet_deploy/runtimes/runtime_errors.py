"""Translation of a runtime's exceptions into our errors, with a cause and a remedy."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from effdet_deploy.errors import ModelFileError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from effdet_deploy.errors import EffdetDeployError

OUT_OF_MEMORY = re.compile(
    r"\bOOM\b|bad_alloc|out ?of ?memory|insufficient (memory|workspace)|ALLOC_FAILED|MEM_ALLOC"
    r"|cudaErrorMemoryAllocation|(failed|unable) to allocate|(cannot|can't|could not) alloc"
    r"|smaller than requested bytes",
    re.IGNORECASE,
)
"""Words in which runtimes report too little memory; illegal accesses to memory do not match."""
LONGEST = 300
"""At most this many characters of a runtime's own message are repeated in our message."""


@contextlib.contextmanager
def translated(
    path: Path,
    doing: str,
    raised: tuple[type[Exception], ...],
    explain: Callable[[str], EffdetDeployError],
) -> Iterator[None]:
    """Turn an exception that a runtime raises inside the block into one of our errors.

    Args:
        path: the model.
        doing: what happens to the model, ``loaded`` or ``run``.
        raised: the exceptions that the runtime raises.
        explain: returns the error for the runtime's message.

    Raises:
        ResourceError: memory ran out.
    """
    failures: tuple[type[Exception], ...] = (MemoryError, *raised)
    try:
        yield
    except failures as error:
        # A path may look like an error message: "out of memory.onnx".
        text = str(error).replace(str(path), "")
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(text):
            raise ResourceError(
                f"The memory ran out while '{path.name}' was {doing}.",
                "Use a smaller batch or a smaller --image-size, or close other programs.",
            ) from error
        raise explain(str(error)) from error


def failed_run(runtime: str, path: Path, said: str) -> ModelFileError:
    """Return the error for a model that was loaded but could not be run."""
    return ModelFileError(
        f"{runtime} failed while running '{path.name}': {said}.",
        "Export the model again; if that does not help, report this error and attach the model.",
    )


def last_line(text: str, skip: str = r"$^") -> str:
    """Return the last line of ``text`` that does not match ``skip``; it gives the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not re.search(skip, line)]
    return (telling or lines or ["no reason given"])[-1][:LONGEST].rstrip(".")
