"""What machine a benchmark runs on, and whether other programs disturb it."""

from __future__ import annotations

import os

import pytest

from effdet_deploy.benchmark.machine import Load, LoadWatch, describe_machine
from effdet_deploy.errors import ResourceError
from effdet_deploy.runtimes.lanes import usable_cpus

TICKS = os.sysconf("SC_CLK_TCK")
CPU_INFO = """processor : 0
model name : Imaginary 9000
cpu MHz : {mhz}
flags : fpu avx2 avx512f avx512_vnni hypervisor

processor : 1
model name : Imaginary 9000
cpu MHz : {mhz}
"""


@pytest.fixture
def kernel(tmp_path):
    """A stand-in for /proc and /sys whose counters a test sets."""
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    throttle = sys / "devices/system/cpu/cpu0/thermal_throttle"
    throttle.mkdir(parents=True)
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal:       8388608 kB\nMemFree: 1 kB\n")

    def set_counters(*, user=0.0, steal=0.0, throttled=0, mhz=2000.0):
        lines = [
            f"cpu{index} {int(user * TICKS)} 0 0 0 0 0 0 {int(steal * TICKS)} 0 0"
            for index in usable_cpus()
        ]
        (proc / "stat").write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "intr 1"]))
        (proc / "cpuinfo").write_text(CPU_INFO.format(mhz=mhz))
        (throttle / "core_throttle_count").write_text(str(throttled))

    set_counters()
    return proc, sys, set_counters


def watched(kernel, **counters) -> Load:
    """Return the load that a watch reports if the counters change to ``counters`` meanwhile."""
    proc, sys, set_counters = kernel
    with LoadWatch(proc, sys) as watch:
        set_counters(**counters)
    return watch.load


def test_the_machine_is_what_the_kernel_says(kernel):
    proc, sys, _ = kernel
    machine = describe_machine(proc, sys)
    assert machine.cpu == "Imaginary 9000"
    assert machine.flags == ("avx2", "avx512f", "avx512_vnni")
    assert machine.memory == 8 * 1024**3
    assert machine.clock_mhz == 2000
    assert machine.virtual
    assert "8 GiB" in str(machine)


def test_what_a_system_does_not_tell_is_left_empty(tmp_path):
    machine = describe_machine(tmp_path, tmp_path)
    assert (machine.memory, machine.governor, machine.flags) == (0, "", ())
    load = LoadWatch(tmp_path, tmp_path).so_far()
    assert not load.observed
    assert load.reasons == ()


def test_a_quiet_machine_is_trusted(kernel):
    load = watched(kernel)
    assert load.observed
    assert load.reasons == ()
    load.require_quiet()


@pytest.mark.parametrize(
    ("counters", "reason"),
    [
        ({"user": 1000.0}, "other programs took 100%"),
        ({"steal": 1000.0}, "the hypervisor took"),
        ({"throttled": 3}, "throttled 3 times"),
        ({"mhz": 1000.0}, "the clock fell to 50%"),
    ],
)
def test_what_disturbs_a_measurement_is_named_and_refused(kernel, counters, reason):
    load = watched(kernel, **counters)
    assert any(reason in each for each in load.reasons)
    with pytest.raises(ResourceError, match=reason) as caught:
        load.require_quiet()
    assert "--under-load" in caught.value.remedy


def test_our_own_work_is_not_counted_as_that_of_others():
    with LoadWatch() as watch:
        deadline = os.times().user + 0.3
        while os.times().user < deadline:
            pass
    quiet = watch.load.seconds * len(usable_cpus()) - 0.3
    # What others did is at most what is left of the CPUs' time, with one tick of rounding each way.
    assert watch.load.other_share * watch.load.seconds * len(usable_cpus()) <= quiet + 0.05
