"""Serve a bundle with a real tritonserver, and compare its rows with the package's.

    python scripts/triton_server.py digits.onnx --environment DIR PICTURE...

The wheel nvidia-pytriton contains a real tritonserver, but only its Python backend. So the line of
config.pbtxt that names the backend is changed, and the Python backend runs the model with ONNX
Runtime. The wheel needs an older numpy and gets an environment of its own, which is made in DIR
unless it is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import effdet_deploy
from effdet_deploy.bundles import bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("nvidia-pytriton==0.7.0", "onnxruntime>=1.24", "pillow>=11.3")
ENGINE = 'platform: "onnxruntime_onnx"'
BACKEND = """import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

NAMES = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


class TritonPythonModel:
    def initialize(self, args):
        path = f"{args['model_repository']}/{args['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(path)

    def execute(self, requests):
        answers = []
        for request in requests:
            images = triton.get_input_tensor_by_name(request, "images").as_numpy()
            found = self.session.run(list(NAMES), {"images": images})
            tensors = [triton.Tensor(name, each) for name, each in zip(NAMES, found)]
            answers.append(triton.InferenceResponse(tensors))
        return answers
"""
PATIENCE = 120
"""The longest time in seconds that the server may take to start or to end."""


def main() -> None:
    """Compare every row over HTTP and over gRPC; exit with 1 if a row differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--environment", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    python = environment(given.environment)
    with effdet_deploy.load(given.model, "onnxruntime", "cpu") as detector:
        expected = [
            " ".join((each.names[label], f"{score:.4f}", *(f"{side:.2f}" for side in box)))
            for each in detector.detect(given.pictures)
            for label, score, box in zip(each.labels, each.scores, each.boxes, strict=True)
        ]
    with tempfile.TemporaryDirectory() as folder, served(python, given.model, Path(folder)) as at:
        differ = 0
        for protocol, address in at.items():
            client = client_of(Path(folder), protocol)
            command = [python, client, address, given.model.stem, *given.pictures]
            rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            same = rows.splitlines() == expected
            differ += not same
            verdict = "equal" if same else f"different:\n{rows}"
            print(f"{protocol}: {len(rows.splitlines())} rows of {len(expected)}, {verdict}")
    sys.exit(min(differ, 1) if expected else "the model finds nothing in these pictures")


def environment(folder: Path) -> Path:
    """Return the Python of the server's environment, and make the environment if it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def client_of(folder: Path, protocol: str) -> Path:
    """Return the bundle's client, which speaks HTTP, or a copy of it that speaks gRPC."""
    (client,) = folder.glob("models/*/client.py")
    if protocol == "http":
        return client
    text = client.read_text(encoding="utf-8").replace("tritonclient.http", "tritonclient.grpc")
    asked = "server.get_model_config(model)"
    spoken = folder / "client_grpc.py"
    spoken.write_text(
        text.replace(asked, 'server.get_model_config(model, as_json=True)["config"]'),
        encoding="utf-8",
    )
    return spoken


@contextmanager
def served(python: Path, model: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Serve a bundle of ``model``; yield an address per protocol."""
    made = bundle("triton", model, folder / "models")
    config = made.folder / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(ENGINE, 'backend: "python"'), encoding="utf-8")
    (made.folder / "1" / "model.py").write_text(BACKEND, encoding="utf-8")

    (home,) = python.parents[1].glob("lib/python*/site-packages/pytriton/tritonserver")
    version = home.parents[2].name.removeprefix("python")
    shutil.copytree(home / "backends", folder / "backends")
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "backends" / "python")
    ports = {each: free_port() for each in ("http", "grpc")}
    # A server that is killed leaves its shared memory behind. With a name of its own the memory can
    # be removed at the end.
    region = f"effdet_{os.getpid()}_"
    command = [
        *(home / "bin" / "tritonserver", "--model-repository", folder / "models"),
        *("--backend-directory", folder / "backends", "--allow-metrics", "false"),
        *("--backend-config", f"python,shm-region-prefix-name={region}"),
        *("--http-port", str(ports["http"]), "--grpc-port", str(ports["grpc"])),
    ]
    libraries = home.parents[1] / "nvidia_pytriton.libs"
    places = os.environ | {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(libraries),
    }
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=places, stdout=log, stderr=log)
    try:
        wait_for(f"http://localhost:{ports['http']}/v2/health/ready", server, folder / "server.log")
        yield {name: f"localhost:{port}" for name, port in ports.items()}
    finally:
        server.terminate()
        server.wait(PATIENCE)
        for each in Path("/dev/shm").glob(f"{region}*"):
            each.unlink()


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as door:
        door.bind(("localhost", 0))
        return int(door.getsockname()[1])


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server is ready; exit with its log if it ends or takes too long."""
    until = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"tritonserver did not become ready:\n{log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
