"""Printing: results go to stdout; progress, notes and errors go to stderr."""

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
    """Return a console for progress, notes and errors."""
    return _console(to_stderr=True)


# Characters that a terminal would obey instead of showing: control characters other than line feed
# and tab, marks that change the direction of text, and surrogates, which are not valid text.
_OBEYED = (
    *(each for each in range(0x20) if chr(each) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    *range(0xD800, 0xE000),
)
_REPLACEMENTS = dict.fromkeys(_OBEYED, "\N{REPLACEMENT CHARACTER}")
_WIDTH_OF_NO_TERMINAL = 80
_FAST = 100
"""Pictures per second from which a rate is shown without decimals."""
_RESULTS = ("--json", "--html", "--markdown")


def shown(text: str) -> str:
    """Replace every character that a terminal would obey by a sign that it shows.

    Names of classes, variants and pictures come from files: an escape sequence in one of them must
    reach no terminal.
    """
    return text.translate(_REPLACEMENTS)


def _console(*, to_stderr: bool) -> Console:
    # Rich takes long to import, and `--help` does without it.
    from rich.console import Console

    class Screen(Console):
        def render(self, *arguments: Any, **named: Any) -> Iterable[Segment]:
            """Yield the segments to write; all text passes through here."""
            for segment in super().render(*arguments, **named):
                yield segment if segment.control else segment._replace(text=shown(segment.text))

        def on_broken_pipe(self) -> None:
            """Go on silently; Rich would exit with 1, but the exit code has to give the verdict."""
            mute(self.file)

    # Some editors and services set COLUMNS=0; Rich would take that for a screen without width.
    width = _WIDTH_OF_NO_TERMINAL if os.environ.get("COLUMNS") == "0" else None
    return Screen(stderr=to_stderr, highlight=False, soft_wrap=True, width=width)


def mute(stream: IO[str]) -> None:
    """Discard further output: the reader of ``stream`` has left, as ``| head`` does."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def note(text: str) -> None:
    """Print a note for the user on stderr; an empty text prints nothing."""
    if text:
        stderr().print(text, markup=False, style="yellow")


def report_error(cause: str, remedy: str) -> None:
    """Print an error on stderr: its cause, then its remedy."""
    from rich.text import Text

    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), cause))
    if remedy:
        console.print(Text(remedy))


def require_results(
    results: Mapping[str, Path | None], apart_from: Iterable[Path | None] = ()
) -> None:
    """Refuse result files that cannot be written or would replace a file of this command.

    Args:
        results: option names and the files they name; None where an option was not given.
        apart_from: other files that the command reads or writes.
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
                f"{first} and {option} both name '{written}'.", "Name two different files."
            )


def require_targets(*targets: Path | None) -> None:
    """Refuse files that cannot be written, before any work; None stands for no file."""
    from effdet_deploy.files import require_writable_target

    for target in targets:
        if target is not None:
            require_writable_target(target)


def require_distinct(option: str, written: Path | None, *others: Path | None) -> None:
    """Refuse to write a file that would replace another one that the command reads or writes.

    ``option`` names the file. A result never replaces a picture or a model, not even one that this
    command does not use: the picture or model may lie in a folder that the command reads.
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
            f"{option} would replace '{other}', which this command reads or writes.",
            "Name another file.",
        )
    suffix = written.suffix.lower()
    if option in _RESULTS and suffix in PICTURES | SUFFIXES.keys() and written.is_file():
        kind = "picture" if suffix in PICTURES else "model"
        raise UsageError(f"{option} would replace the {kind} '{written}'.", "Name another file.")


def with_sidecars(*models: Path | None) -> tuple[Path, ...]:
    """Return ``models`` and their sidecars, the JSON files beside them."""
    from effdet_deploy.files import sidecar_path

    given = [each for each in models if each is not None]
    return (*given, *map(sidecar_path, given))


def write_json(target: Path | None, document: object) -> None:
    """Write ``document`` to ``target``, whole or not at all; do nothing if ``target`` is None."""
    from effdet_deploy.files import write_atomically

    if target is not None:
        write_atomically(target, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Give a function that announces a stage of the work; show how many seconds a stage took.

    If two stages in succession have the same name up to a colon, as those of a download, the second
    continues the first.
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
def counted(total: int | None) -> Iterator[Callable[[str, int], None]]:
    """Give a function ``(name, done)`` that shows a progress bar per name on a terminal.

    Beside the bar stand the rate and the remaining time; a ``total`` of None is unknown.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
    from rich.progress import MofNCompleteColumn as Count
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Show the rate of the last seconds, and at the end the rate of the whole work."""
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.{1 if speed < _FAST else 0}f}/s" if speed else "", "cyan")

    columns = (TextColumn("{task.description}"), BarColumn(), Count(), Rate(), Remaining())
    screen = stderr()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:

        def tell(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(escape(name), total=total)
            bar.update(tasks[name], completed=done)

        yield tell
