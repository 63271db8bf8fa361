"""The errors that this package raises, and their exit codes.

::

    EffdetDeployError                 1  a bug of ours, unless a subclass says otherwise
    ├── UsageError                    2  options that are unknown, contradictory or impossible
    │   └── UnknownNameError          2  a name that is not in a registry; carries the nearest ones
    │       └── UnknownDeviceError    2  a device
    ├── VerificationError             3  the artifact does not do what its reference does
    ├── MissingError                  4  something this machine lacks
    │   ├── MissingPackageError       4  an optional package; names the extra
    │   ├── DeviceError               4  a device or execution provider
    │   ├── DownloadError             4  a network transfer
    │   └── ResourceError             4  memory or disk
    └── InputError                    5  an input file or value is unusable
        ├── WeightsError              5  a checkpoint
        ├── ModelFileError            5  an ONNX file, a TorchScript archive or an engine
        ├── ImageError                5  a picture
        ├── TensorError               5  an array given to a runtime
        └── DataError                 5  annotations, labels, calibration sets, specs

    EffdetDeployWarning                  only used as a warning, never raised

Every error has one sentence of cause and one of remedy, in the user's words.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class EffdetDeployError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        cause: one sentence that says what is wrong, with the expected and the given value.
        remedy: one sentence that says what to do about it.
    """

    exit_code = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are sent between processes, and subclasses have other constructor arguments.
        return _restored, (type(self), self.args, vars(self))


def _restored(
    kind: type[EffdetDeployError], args: tuple[str, ...], fields: dict[str, Any]
) -> EffdetDeployError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class UsageError(EffdetDeployError):
    """Options that are unknown, contradict each other or ask for something impossible."""

    exit_code = 2


_LISTED_WHOLE = 8
"""Up to this many names are all listed: the user may have meant one that is spelled otherwise."""


class UnknownNameError(UsageError):
    """A name that is not in a registry.

    Args:
        kind: what was looked up, such as ``"variant"``.
        name: what was asked for.
        known: every name that is accepted; the message shows the three nearest ones.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        listed = ", ".join(near or names)
        remedy = f"Did you mean {listed}?" if near else f"Choose one of: {listed}."
        if near and len(names) <= _LISTED_WHOLE:
            remedy += f" The known names are: {', '.join(names)}."
        cause = f"There is no {kind} named '{name}'." if name else f"The {kind} is missing."
        super().__init__(cause, remedy)
        self.nearest = tuple(near)


class UnknownDeviceError(UnknownNameError):
    """A device that the runtime does not have, or that it calls by another name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("device", name, known)
        if name.lower().startswith(("gpu", "nvidia")):
            self.remedy = "NVIDIA GPUs are called 'cuda', or 'cuda:1' for the second one."


class VerificationError(EffdetDeployError):
    """The artifact does not do what its reference does."""

    exit_code = 3


class MissingError(EffdetDeployError):
    """Something that this machine lacks: a package, a device, the network, memory."""

    exit_code = 4


class MissingPackageError(MissingError):
    """An optional package is not installed.

    Args:
        package: the distribution that is missing.
        purpose: the activity that needs it, such as ``"exporting"``.
        extra: the extra of effdet-deploy that installs it; empty if pip installs it by its name.
    """

    def __init__(self, package: str, purpose: str, extra: str = "") -> None:
        wanted = f"'effdet-deploy[{extra}]'" if extra else package
        super().__init__(
            f"{purpose[:1].upper()}{purpose[1:]} needs the package '{package}', "
            "which is not installed.",
            f"Install it with: pip install {wanted}.",
        )
        self.package = package


class DeviceError(MissingError):
    """The requested device or execution provider is not available."""


class DownloadError(MissingError):
    """A network transfer failed or delivered the wrong file."""


class ResourceError(MissingError):
    """Memory or disk ran out."""


class InputError(EffdetDeployError):
    """An input file or value is unusable."""

    exit_code = 5


class WeightsError(InputError):
    """A checkpoint is unreadable, unsafe, or belongs to another model."""


class ModelFileError(InputError):
    """An ONNX file, TorchScript archive or engine is unreadable or unusable."""


class ImageError(InputError):
    """A picture is unreadable, truncated or too large."""


class TensorError(InputError):
    """An array's name, dtype, rank or shape is not what the model takes."""


class DataError(InputError):
    """Annotations, labels, a calibration set or a spec are unusable."""


class EffdetDeployWarning(UserWarning):
    """A warning that the user should read but that does not stop the work."""


def require_package(package: str, purpose: str, extra: str = "") -> None:
    """Check for an optional package before any work is done; see :class:`MissingPackageError`."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(package, purpose, extra) from error


def import_failure(error: ImportError, package: str, runtime: str, extra: str) -> MissingError:
    """Make the error for a runtime whose package cannot be imported: it is absent or broken.

    Args:
        error: the exception that its import raised.
        package: the name of the package.
        runtime: the runtime's name, such as ``OpenVINO``.
        extra: the extra of effdet-deploy that installs it.
    """
    absent = (error.name or package).partition(".")[0].replace("_", "-")
    if isinstance(error, ModuleNotFoundError) and package.startswith(absent):
        return MissingPackageError(package, f"running models with {runtime}", extra)
    return DeviceError(
        f"The package '{package}' is installed but cannot be loaded: {error}.",
        "Install it again, together with the libraries that the message names.",
    )


Rule = tuple[str, str, bool]
"""Cause and remedy of an error, and whether the rule is broken."""


def limit(option: str, wanted: str, given: object, holds: bool) -> Rule:
    """Return the rule that a value must lie in a range."""
    return f"{option} must be {wanted}, not {given}.", "Choose a value in that range.", not holds


def refuse(*rules: Rule) -> None:
    """Raise UsageError for the first rule that is broken."""
    for cause, remedy, is_broken in rules:
        if is_broken:
            raise UsageError(cause, remedy)
