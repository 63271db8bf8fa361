"""A second Ctrl-C ends a command whose runtime never returns."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

RUN = """
import signal, sys
import onnxruntime as ort
import effdet_deploy.cli.doctor as doctor
from effdet_deploy.cli import main
# Python's own handler would end the command if the signal came before ONNX Runtime begins.
signal.signal(signal.SIGINT, lambda *_: None)
session = ort.InferenceSession(sys.argv[1])
def run():
    print("begun", flush=True)
    session.run(None, {})
doctor.run = run
sys.exit(main(["doctor"]))
"""


def endless(path) -> None:
    """Write a graph whose Loop has no end: native code that never returns."""
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])

    def value(name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [])

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64),
            *(value(each, TensorProto.BOOL) for each in ("go", "state")),
        ],
        [value(each, TensorProto.BOOL) for each in ("go_on", "next")],
    )
    loop = helper.make_node("Loop", ["", "true", "true"], ["end"], body=body)
    graph = helper.make_graph([loop], "endless", [], [value("end", TensorProto.BOOL)], [true])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_command_whose_runtime_never_returns(tmp_path, second):
    endless(tmp_path / "endless.onnx")
    command = [sys.executable, "-c", RUN, tmp_path / "endless.onnx"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        # The command says this after two seconds, so it still runs.
        assert "A second Ctrl-C ends the command at once" in process.stderr.readline()
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(timeout=30) == 130
        assert "ended at once" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_two_signals_in_quick_succession_count_as_one_and_the_command_cleans_up(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "import effdet_deploy.cli.doctor as doctor\n"
        "from effdet_deploy.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def run():\n"
        "    try:\n"
        "        print('begun', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(0.2); print('cleaned')\n"
        "doctor.run = run\n"
        "sys.exit(main(['doctor']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert said == "cleaned\n"
    assert process.returncode == 130
