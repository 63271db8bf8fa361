"""What an export, a build or a bundle prints at its end: the comparison, and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from effdet_deploy.reports.text import show
from effdet_deploy.reports.verification import render

if TYPE_CHECKING:
    from rich.console import RenderableType

    from effdet_deploy.bundles.options import Bundle
    from effdet_deploy.exporters.delivery import Artifact

_IF_WRONG = (
    "    if your training did otherwise, say so with --resize, --interpolation, --trained-on, "
    "--mean, --std, --fill, --labels-by or --config\n"
    "    (documentation, page 'Bring your checkpoint', section 'How the training prepared its "
    "pictures')"
)


def render_export(artifact: Artifact, seconds: float) -> RenderableType:
    """Return the final report of an export, for a terminal."""
    spec = artifact.spec
    what = f", {spec.variant}, {spec.precision.kind.upper()}"
    report = artifact.report
    verdict = (
        show(["[!] not verified: --no-verify was given"])
        if report is None
        else render(report, what_was_compared(artifact))
    )
    assumed = [f"[?] assumed, because the weights do not say: {each}" for each in spec.assumed]
    if assumed:
        assumed.append(_IF_WRONG)
    said = [*assumed, *_notes(artifact, seconds, what), f"    next: {next_step(artifact)}"]
    return Group(verdict, show(said))


def render_build(artifact: Artifact, seconds: float) -> RenderableType:
    """Return the final report of a build, for a terminal."""
    verdict = [] if artifact.report is None else [render(artifact.report)]
    return Group(*verdict, show(_notes(artifact, seconds)))


def render_bundle(bundle: Bundle) -> RenderableType:
    """Return the final report of a bundle, for a terminal."""
    first, *then = bundle.next
    return show(
        [
            *(f"[!] {note}" for note in bundle.notes),
            f"[✓] wrote {bundle.folder}: {', '.join(bundle.files)}",
            f"    next: {first}",
            *(f"    then: {each}" for each in then),
        ]
    )


def _notes(artifact: Artifact, seconds: float, what: str = "") -> list[str]:
    size = f"{artifact.size / 1e6:.1f} MB{what}"
    written = f"[✓] wrote {artifact.path} ({size}) in {seconds:.0f} s"
    return [*(f"[!] {note}" for note in artifact.notes), written]


def what_was_compared(artifact: Artifact) -> str:
    """Return the title of an export's verification."""
    engine = artifact.spec.engine
    if engine is None:
        return "verification"
    return f"verification of the {'engine' if engine.can_run_where_built else 'ONNX file'}"


def next_step(artifact: Artifact) -> str:
    """Return the command that uses the artifact, or a sentence on where it can be used."""
    path, engine = artifact.path, artifact.spec.engine
    names = f"{path.name} and {artifact.sidecar.name}"
    if artifact.spec.output.nms == "plugin" and engine is None:
        build = f"effdet-deploy build {path.name} {path.stem}.engine"
        return f"copy {names} to the machine with TensorRT and run: {build}"
    if engine is not None and engine.is_stripped:
        return f"refit {path.name} with its weights (TensorRT's Refitter) before you run it"
    if engine is not None and not engine.gpu:
        run = f"effdet-deploy detect {path.name} PICTURE.jpg"
        return f"copy {names} to the machine with the GPU and run: {run}"
    if artifact.spec.input.frame_size is not None:
        return f"effdet-deploy bundle deepstream {path} DIR"
    backend = " --backend openvino" if artifact.spec.precision.target == "openvino" else ""
    return f"effdet-deploy detect {path} PICTURE.jpg{backend}"
