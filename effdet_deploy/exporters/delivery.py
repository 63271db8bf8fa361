"""The result of an export, and its last step: writing its sidecar (JSON) and moving the files."""

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
        spec: the artifact's description of itself.
        report: the comparison with eager PyTorch; None without verification.
        size: the size in bytes, external data included.
        notes: sentences that the user should read.
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
        """Return everything about the artifact as a document for JSON."""
        return {
            "path": str(self.path),
            "sidecar": str(self.sidecar),
            "size": self.size,
            "notes": list(self.notes),
            "spec": asdict(self.spec),
            "verification": None if self.report is None else self.report.to_dict(),
        }


def failed_path(target: Path) -> Path:
    """Return the path under which an artifact that fails its verification is kept."""
    return target.with_name(target.name + ".failed")


def scratch_path(staged: Path, role: str) -> Path:
    """Return a path beside ``staged``, in its private directory, that no output uses."""
    return staged.with_name(f"{role}.scratch")


def precision_file_path(artifact: Path) -> Path:
    """Return the path of the file that says which layers of ``artifact`` are INT8."""
    return artifact.with_name(f"{artifact.name}.precision.json")


def is_precision_file_of(given: Path | None, output: Path) -> bool:
    """Return whether the user's file ``given`` lies where ``output``'s own would be written."""
    places = (precision_file_path(output), precision_file_path(failed_path(output)))
    return given is not None and given.resolve() in {each.resolve() for each in places}


def moves_of(
    staged: Path, final: Path, external_files: Sequence[ExternalFile]
) -> list[tuple[Path, Path]]:
    """Return the moves of a model and the files that belong to it, in the order of delivery.

    First come the data files, then the sidecar, the model, and its precision file if there is one:
    a model is never seen without its data.
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

    External files that ``spec`` names are expected beside ``staged``. If two processes deliver to
    one target, the files of one of them stay. ``extra`` is added to the sidecar; ``reference``
    names what the artifact was compared with.

    Raises:
        VerificationError: ``report`` failed; the artifact is kept as ``target.failed``.
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
            f"Nothing was detected, so the model could not be compared with {reference}; it "
            f"is kept as '{kept}'.",
            "Pass --verify-images with pictures of objects that it detects, or pass --no-verify.",
        )
    reach = None if report is None else report.reach
    if reach is not None and not reach.fits:
        return VerificationError(
            f"Some detections of {reference} are lost: {reach.allowed} candidates enter NMS, but "
            f"{reach.needed} of effdet's {reach.known} are needed. The file is kept as '{kept}'.",
            f"Export with --candidates {enough_candidates(reach.needed)}, or without --candidates.",
        )
    return VerificationError(
        f"The exported model differs from {reference}; it is kept as '{kept}'.",
        f"Read the comparison in '{sidecar_path(kept)}' and report it to effdet-deploy.",
    )
