"""What an export delivers, and the last step of every export: the sidecar and the move."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from effdet_deploy._version import __version__
from effdet_deploy.artifact.spec import enough_candidates
from effdet_deploy.errors import VerificationError
from effdet_deploy.files import deliver_together, one_at_a_time, sha256_file, sidecar_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec, ExternalFile
    from effdet_deploy.parity.verdict import ParityReport


@dataclass(frozen=True)
class Artifact:
    """A delivered file.

    Attributes:
        path: the artifact itself.
        spec: what it says about itself.
        report: how it compared with eager PyTorch; None if that was not asked for.
        size: bytes, external data included.
        notes: what the user should know, a sentence each.
    """

    path: Path
    spec: DetectorSpec
    report: ParityReport | None
    size: int
    notes: tuple[str, ...] = ()

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the artifact."""
        return sidecar_path(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything about the artifact in a form that JSON can hold."""
        return {
            "path": str(self.path),
            "sidecar": str(self.sidecar),
            "size": self.size,
            "notes": list(self.notes),
            "spec": asdict(self.spec),
            "verification": None if self.report is None else self.report.to_dict(),
        }


def failed_path(target: Path) -> Path:
    """Return where an artifact is kept that did not pass its verification."""
    return target.with_name(target.name + ".failed")


def scratch_path(staged: Path, role: str) -> Path:
    """Return a place beside ``staged``, in its private directory, that no output can have."""
    return staged.with_name(f"{role}.scratch")


def precision_file_path(artifact: Path) -> Path:
    """Return where the file stands that says which layers of ``artifact`` are INT8."""
    return artifact.with_name(f"{artifact.name}.precision.json")


def is_precision_file_of(given: Path | None, output: Path) -> bool:
    """Tell whether ``given``, which the user wrote, is where ``output``'s own would go."""
    places = (precision_file_path(output), precision_file_path(failed_path(output)))
    return given is not None and given.resolve() in {each.resolve() for each in places}


def moves_of(
    staged: Path, final: Path, external_files: Sequence[ExternalFile]
) -> list[tuple[Path, Path]]:
    """Return the moves of a model and of what belongs to it, in the order of delivery.

    These are its data files, its sidecar, the model, and its precision file where it has one: a
    model is never seen without its data.
    """
    data = [(staged.with_name(each.name), final.with_name(each.name)) for each in external_files]
    listed = precision_file_path(staged)
    last = [(listed, precision_file_path(final))] if listed.is_file() else []
    return [*data, (sidecar_path(staged), sidecar_path(final)), (staged, final), *last]


def deliver_artifact(
    staged: Path,
    target: Path,
    spec: DetectorSpec,
    report: ParityReport | None,
    notes: tuple[str, ...] = (),
    *,
    reference: str = "PyTorch",
    extra: Mapping[str, object] = MappingProxyType({}),
) -> Artifact:
    """Move a staged artifact and its sidecar to ``target``, or to ``target.failed``.

    External files that ``spec`` names are expected beside ``staged``. Of two deliveries to one
    target, the files of one stay.
    ``extra`` joins the sidecar; ``reference`` is what ``report`` compared with.

    Raises:
        VerificationError: ``report`` failed; what was built is kept as ``target.failed``.
    """
    failed = report is not None and not report.deliverable
    final = failed_path(target) if failed else target
    document = {
        "effdet_deploy": __version__,
        "spec": asdict(spec),
        "sha256": sha256_file(staged),
        "verification": None if report is None else report.to_dict(),
        **extra,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    sidecar_path(staged).write_text(text, encoding="utf-8")
    size = staged.stat().st_size + sum(each.size for each in spec.external_files)
    with one_at_a_time(target.parent):
        deliver_together(moves_of(staged, final, spec.external_files))
    if failed:
        raise _failure(report, final, reference)
    return Artifact(final, spec, report, size, notes)


def _failure(report: ParityReport | None, kept: Path, reference: str) -> VerificationError:
    if report is not None and report.inconclusive:
        return VerificationError(
            f"Nothing was detected that would prove that the model gives what {reference} gives; "
            f"it is kept as '{kept}'.",
            "Pass pictures that show what it detects, with --verify-images DIR, or --no-verify.",
        )
    reach = None if report is None else report.reach
    if reach is not None and not reach.fits:
        return VerificationError(
            f"Rows are lost that {reference} gives: {reach.allowed} candidates enter NMS, and "
            f"{reach.needed} of effdet's {reach.known} hold them all; it is kept as '{kept}'.",
            f"Export with --candidates {enough_candidates(reach.needed)}, or leave --candidates "
            "out.",
        )
    return VerificationError(
        f"The exported model does not give what {reference} gives; it is kept as '{kept}'.",
        f"Read the comparison in '{sidecar_path(kept)}' and report it to effdet-deploy.",
    )
