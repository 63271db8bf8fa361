"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Backend = Annotated[str, typer.Option(help="The engine; auto goes by the model's suffix.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N, tensorrt or tensorrt:N; used or refused.")
]
Threads = Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load an engine that has no sidecar to check it by.")
]
VerifyImages = Annotated[Path | None, typer.Option(metavar="DIR", help="Pictures to compare on.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="The result as JSON.")
]
