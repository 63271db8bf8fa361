"""The machine that a benchmark ran on, and the load from other programs during the benchmark."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from effdet_deploy._version import __version__
from effdet_deploy.errors import ResourceError
from effdet_deploy.runtimes.lanes import usable_cpus

_PROC, _SYS = Path("/proc"), Path("/sys")
MAX_OTHER_SHARE = 0.05
"""Share of the processors' time spent by other processes; housekeeping alone is below 0.02."""
MAX_STEAL_SHARE = 0.02
"""Share of the processors' time taken by the hypervisor for other guests."""
MIN_CLOCK_RATIO = 0.9
"""Ratio of the clock at the end to that at the beginning; below it, the processor slowed down."""
_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_int8", "amx_bf16", "amx_tile", "asimd", "asimddp", "sve", "bf16"),
)
"""The instruction sets that decide how fast a CPU runs models, as Linux names them."""


@dataclass(frozen=True)
class Machine:
    """The machine as far as it is known; unknown texts are empty and unknown numbers are 0.

    ``cpus`` are those that this process may use, ``flags`` the instruction sets that matter for
    inference, ``memory`` is in bytes, ``clock_mhz`` is the clock at the moment of the report.
    """

    cpu: str
    architecture: str
    cpus: int
    cpus_online: int
    flags: tuple[str, ...]
    memory: int
    governor: str
    clock_mhz: float
    virtual: bool
    system: str
    python: str

    def __str__(self) -> str:
        parts = [
            self.cpu or self.architecture,
            f"{self.cpus} of {self.cpus_online} CPUs",
            f"{self.memory / 1024**3:.0f} GiB" if self.memory else "",
            "virtual machine" if self.virtual else "",
            f"governor {self.governor}" if self.governor else "",
            " ".join(self.flags),
        ]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Load:
    """The load during a measurement; shares refer to the time of the usable CPUs.

    ``observed`` is false if the system does not report its load (no ``/proc/stat``); then the
    shares are 0.
    """

    seconds: float
    observed: bool
    other_share: float
    steal_share: float
    load_average: float
    throttle_events: int
    clock_ratio: float

    @property
    def reasons(self) -> tuple[str, ...]:
        """Clauses on why numbers measured under this load are unreliable; empty if reliable.

        An unobserved load gives no reason.
        """
        found = []
        if self.other_share > MAX_OTHER_SHARE:
            found.append(f"other programs took {self.other_share:.0%} of the processors' time")
        if self.steal_share > MAX_STEAL_SHARE:
            found.append(f"the hypervisor took {self.steal_share:.0%} of the processors' time")
        if self.throttle_events:
            found.append(f"the processor was throttled {self.throttle_events} times by heat")
        if self.clock_ratio < MIN_CLOCK_RATIO:
            found.append(f"the clock fell to {self.clock_ratio:.0%} of its rate at the start")
        return tuple(found)

    def require_quiet(self) -> None:
        """Refuse numbers that other work has spoiled.

        Raises:
            ResourceError: the machine was busy with other work; the message gives its share.
        """
        if self.reasons:
            raise ResourceError(
                f"The numbers measured here are not reliable: {' and '.join(self.reasons)}.",
                "Run the benchmark again when nothing else uses the machine, or pass --under-load "
                "to see the numbers with a warning.",
            )


def environment(machine: Machine, load: Load) -> dict[str, Any]:
    """Return the machine and its load as a document for JSON."""
    return {
        "effdet_deploy": __version__,
        "machine": asdict(machine),
        "load": asdict(load) | {"trusted": not load.reasons, "reasons": list(load.reasons)},
    }


def describe_machine(proc: Path = _PROC, sys: Path = _SYS) -> Machine:
    """Describe this machine from the files of Linux in ``proc`` and ``sys``, if they exist."""
    said = _fields(proc / "cpuinfo")
    flags = said.get("flags", said.get("Features", "")).split()
    return Machine(
        cpu=said.get("model name", platform.processor()),
        architecture=platform.machine(),
        cpus=len(usable_cpus()),
        cpus_online=os.cpu_count() or 1,
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        memory=_bytes(proc / "meminfo", "MemTotal"),
        governor=_read(sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clock_mhz=_clock(proc),
        virtual="hypervisor" in flags,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def peak_memory(proc: Path = _PROC) -> int:
    """Return the most host memory that this process ever used, in bytes; 0 if unknown.

    ``getrusage`` cannot be used: its maximum includes that of the process that started this one.
    """
    return _bytes(proc / "self/status", "VmHWM")


def _read(path: Path) -> str:
    """Return the text of a kernel file; empty if there is no such file."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _fields(path: Path) -> dict[str, str]:
    """Return the lines ``name: value`` of a kernel file, up to its first empty line."""
    lines = _read(path).partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _bytes(path: Path, name: str) -> int:
    return 1024 * int(_fields(path).get(name, "0 kB").split()[0])


def _clock(proc: Path) -> float:
    """Return the mean clock of all CPUs in MHz, as the kernel reports it."""
    clocks = re.findall(r"^cpu MHz\s*: (.+)", _read(proc / "cpuinfo"), re.MULTILINE)
    return sum(map(float, clocks)) / len(clocks) if clocks else 0.0


@dataclass(frozen=True)
class _Counters:
    """Counters of the kernel at one moment: in seconds, except for the throttle events."""

    wall: float
    own: float
    busy: float
    stolen: float
    throttled: int
    mhz: float
    observed: bool


class LoadWatch:
    """Watches the load from other programs inside a ``with`` block; ``load`` holds it afterwards.

    It reads counters of the kernel at both ends and costs nothing in between.
    """

    def __init__(self, proc: Path = _PROC, sys: Path = _SYS) -> None:
        self._proc, self._sys = proc, sys
        self._begun = self._now()
        self.load = self.so_far()

    def __enter__(self) -> Self:
        self._begun = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.load = self.so_far()

    def so_far(self) -> Load:
        """Return the load since the beginning."""
        begin, end = self._begun, self._now()
        seconds = end.wall - begin.wall
        # A tick is 10 ms: shares of a shorter time would be noise.
        capacity = max(seconds * len(usable_cpus()), 0.05)
        other = (end.busy - begin.busy) - (end.own - begin.own)
        return Load(
            seconds=seconds,
            observed=end.observed,
            other_share=min(1.0, max(0.0, other / capacity)) if end.observed else 0.0,
            steal_share=max(0.0, end.stolen - begin.stolen) / capacity,
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
            throttle_events=end.throttled - begin.throttled,
            clock_ratio=end.mhz / begin.mhz if begin.mhz else 1.0,
        )

    def _now(self) -> _Counters:
        stat = _read(self._proc / "stat")
        names = {f"cpu{index}" for index in usable_cpus()}
        tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        busy = stolen = 0
        for line in stat.splitlines():
            name, *counts = line.split()
            if name in names:
                # See ``man 5 proc_stat``.
                user, nice, system, _idle, _wait, irq, soft_irq, steal = map(int, counts[:8])
                busy += user + nice + system + irq + soft_irq
                stolen += steal
        return _Counters(
            wall=time.perf_counter(),
            own=sum(os.times()[:4]),
            busy=busy / tick,
            stolen=stolen / tick,
            throttled=self._throttle_events(),
            mhz=_clock(self._proc),
            observed=bool(stat),
        )

    def _throttle_events(self) -> int:
        counters = self._sys.glob("devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")
        return sum(int(_read(counter) or 0) for counter in counters)
