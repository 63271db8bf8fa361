"""Where words go: results to stdout, progress, notes and errors to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from rich.console import Console
    from rich.segment import Segment


def stdout() -> Console:
    """Return a console for results."""
    return _console(to_stderr=False)


def stderr() -> Console:
    """Return a console for everything else."""
    return _console(to_stderr=True)


# What a terminal would obey rather than show: C0 and C1 but for line feeds and tabs, marks that
# turn the direction of what follows, and the surrogates that stand for bytes of no encoding.
_OBEYED = (
    *(each for each in range(0x20) if chr(each) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    *range(0xD800, 0xE000),
)
_SHOWN = dict.fromkeys(_OBEYED, "\N{REPLACEMENT CHARACTER}")
_WIDTH_OF_NO_TERMINAL = 80
_RESULTS = ("--json", "--html", "--markdown")


def shown(text: str) -> str:
    """Return ``text`` with a sign in place of each character that a terminal would obey.

    Names of classes, variants and pictures come from files: an escape sequence in one of them must
    reach no terminal.
    """
    return text.translate(_SHOWN)


def _console(*, to_stderr: bool) -> Console:
    # Rich takes long to import, and `--help` does without it.
    from rich.console import Console

    class Screen(Console):
        def render(self, *arguments: Any, **named: Any) -> Iterable[Segment]:
            """Yield what is to be written; the one place that all text goes through."""
            for segment in super().render(*arguments, **named):
                yield segment if segment.control else segment._replace(text=shown(segment.text))

        def on_broken_pipe(self) -> None:
            """Go on in silence, where Rich would end with 1: the verdict is in the exit code."""
            mute(self.file)

    # Rich takes COLUMNS=0, as some editors and services set it, for a terminal without room.
    width = _WIDTH_OF_NO_TERMINAL if os.environ.get("COLUMNS") == "0" else None
    return Screen(stderr=to_stderr, highlight=False, soft_wrap=True, width=width)


def mute(stream: IO[str]) -> None:
    """Send what follows nowhere: the reader of ``stream`` has left, as ``| head`` does."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def note(text: str) -> None:
    """Say something the user should know, on stderr."""
    stderr().print(text, markup=False, style="yellow")


def report_error(cause: str, remedy: str) -> None:
    """Print an error in its two parts, on stderr."""
    from rich.text import Text

    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), cause))
    if remedy:
        console.print(Text(remedy))


def require_results(
    results: Mapping[str, Path | None], apart_from: Iterable[Path | None] = ()
) -> None:
    """Refuse results that could not be written, or would replace a file of this command.

    Args:
        results: by the option that names it, a file to write; None is one not asked for.
        apart_from: what the command reads, or makes beside them.
    """
    from effdet_deploy.errors import UsageError

    require_targets(*results.values())
    others = tuple(apart_from)
    options: dict[Path, str] = {}
    for option, written in results.items():
        require_distinct(option, written, *others)
        if written is None:
            continue
        first = options.setdefault(written.resolve(), option)
        if first != option:
            raise UsageError(
                f"{first} and {option} both name '{written}'.", "Give each a file of its own."
            )


def require_targets(*targets: Path | None) -> None:
    """Refuse files that could not be written, before any work; None is a file not asked for."""
    from effdet_deploy.files import require_writable_target

    for target in targets:
        if target is not None:
            require_writable_target(target)


def require_distinct(option: str, written: Path | None, *others: Path | None) -> None:
    """Refuse to write what would replace another file that the command reads or makes.

    ``option`` names the file. A picture or a model is replaced by no result, whose ever it is:
    it may lie in a folder that the command reads.
    """
    from effdet_deploy.artifact.modelfile import SUFFIXES
    from effdet_deploy.detection.images import SUFFIXES as PICTURES
    from effdet_deploy.errors import UsageError

    if written is None:
        return
    place = written.resolve()
    other = next((each for each in others if each and each.resolve() == place), None)
    if other is not None:
        raise UsageError(
            f"{option} would replace '{other}', which this command reads or makes.",
            "Name another file.",
        )
    suffix = written.suffix.lower()
    if option in _RESULTS and suffix in PICTURES | SUFFIXES.keys() and written.is_file():
        kind = "picture" if suffix in PICTURES else "model"
        raise UsageError(f"{option} would replace the {kind} '{written}'.", "Name another file.")


def with_sidecars(*models: Path | None) -> tuple[Path, ...]:
    """Return ``models`` and the sidecar of each."""
    from effdet_deploy.files import sidecar_path

    given = [each for each in models if each is not None]
    return (*given, *map(sidecar_path, given))


def write_json(target: Path | None, document: object) -> None:
    """Write ``document`` to ``target``, whole or not at all; nothing where none was asked for."""
    from effdet_deploy.files import write_atomically

    if target is not None:
        write_atomically(target, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Give a function that names the stage that begins; show it, and its seconds when it is over.

    A stage whose name begins like the last one's, such as a download that goes on, replaces it.
    """
    from rich.text import Text

    screen = stderr()
    begun = time.monotonic()
    current = ""

    def close() -> None:
        if current:
            seconds = time.monotonic() - begun
            screen.print(f"    {current}: {seconds:.1f} s", style="dim", markup=False)

    with screen.status("starting") as status:

        def begin(stage: str) -> None:
            nonlocal begun, current
            head = stage.partition(": ")[0]
            if head != current:
                close()
                begun, current = time.monotonic(), head
            status.update(Text(stage))

        yield begin
        close()


@contextlib.contextmanager
def counted(total: int) -> Iterator[Callable[[str, int], None]]:
    """Give a function that shows on a terminal how many of ``total`` are done, by name."""
    from rich.markup import escape
    from rich.progress import Progress, TaskID

    screen = stderr()
    tasks: dict[str, TaskID] = {}
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:

        def tell(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(escape(name), total=total)
            bar.update(tasks[name], completed=done)

        yield tell
