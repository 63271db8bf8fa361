"""Weights that are hostile, broken or made for another model."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from effdet_deploy.errors import DownloadError, WeightsError
from effdet_deploy.pytorch.network import create_model, get_config
from effdet_deploy.pytorch.weights import loading as weights_module
from effdet_deploy.pytorch.weights.checkpoint import read_checkpoint
from tests.faults.refusals import assert_export_is_refused
from tests.loopback import Site, serving

SMALL = ["--image-size", "128"]
SAVERS = {
    "zip": torch.save,
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "plain": lambda state, path: path.write_bytes(pickle.dumps(state)),
}


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return dict(create_model("d0", num_classes=3, image_size=128).state_dict())


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("place", ["alone", "beside weights"])
def test_a_hostile_pickle_is_blocked_and_runs_nothing(tmp_path, capsys, saver, place):
    witness, hostile = tmp_path / "witness", tmp_path / "weights.pth"
    bomb = Hostile(f"touch '{witness}'")
    SAVERS[saver](bomb if place == "alone" else {"state_dict": {}, "args": bomb}, hostile)
    words = ["could run code"] if saver == "plain" else ["system", "no part of the file was run"]
    assert_export_is_refused(
        tmp_path,
        capsys,
        ["--variant", "d0", "--weights", str(hostile)],
        code=5,
        words=["weights.pth", *words],
    )
    assert not witness.exists()


def test_the_fixture_is_dangerous_where_pickle_is_trusted(tmp_path):
    """Otherwise the test above would prove nothing."""
    witness = tmp_path / "witness"
    pickle.loads(pickle.dumps(Hostile(f"touch '{witness}'")))
    assert witness.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.getattr"])
def test_the_allow_list_holds_no_function_that_could_run_something(tmp_path, name):
    module, function = name.split(".")
    opcodes = f"c{module}\n{function}\n(S'1'\ntR.".encode()
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, opcodes if each.endswith("data.pkl") else content)
    with pytest.raises(WeightsError, match="no part of the file was run"):
        read_checkpoint(path)


@pytest.fixture
def release(weights, tmp_path, monkeypatch):
    """A release page on the loopback, and a D0 whose published file lies there."""
    path = tmp_path / "content.safetensors"
    save_file(weights, path)
    content = path.read_bytes()
    path.unlink()
    name = f"d0-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EFFDET_DEPLOY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    with serving(Site({name: content})) as site:
        config = get_config("d0").replace({"url": site.url(name), "num_classes": 3})
        monkeypatch.setattr(weights_module, "get_config", lambda _: config)
        yield site, name


@pytest.mark.parametrize("damage", ["truncated", "another file", "one bit"])
def test_a_wrong_download_is_rejected_by_its_hash_and_removed(tmp_path, capsys, release, damage):
    site, name = release
    content = bytearray(site.files[name])
    content[len(content) // 2] ^= 1
    site.files[name] = {
        "truncated": site.files[name][:-1],
        "another file": b"<html>Sorry</html>",
        "one bit": bytes(content),
    }[damage]
    assert_export_is_refused(
        tmp_path,
        capsys,
        ["--variant", "d0", *SMALL],
        code=DownloadError.exit_code,
        words=["SHA-256", "removed", "--weights PATH"],
    )


def test_without_a_network_it_says_what_to_pass(tmp_path, capsys, release):
    site, _ = release
    site.status = 503
    assert_export_is_refused(
        tmp_path,
        capsys,
        ["--variant", "d0", *SMALL],
        code=DownloadError.exit_code,
        words=["503", "--weights PATH", str(tmp_path / "cache")],
    )


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ("missing", [], ["1 missing (backbone.conv_stem.weight)", "Name the variant"]),
        ("unexpected", [], ["1 unexpected (extra.weight)"]),
        ("misshapen", [], ["1 of another shape", "box_net.predict.conv_pw.bias [9] instead of"]),
        (
            "none",
            ["--num-classes", "20"],
            ["3 classes, but the model has 20: pass --num-classes 3"],
        ),
        ("none", ["--variant", "d1"], ["does not fit tf_efficientdet_d1", "tf_efficientdet_d0"]),
    ],
)
def test_weights_that_do_not_fit_are_listed(tmp_path, capsys, weights, change, options, words):
    changed = dict(weights)
    if change == "missing":
        del changed["backbone.conv_stem.weight"]
    elif change == "unexpected":
        changed["extra.weight"] = torch.zeros(1)
    elif change == "misshapen":
        changed["box_net.predict.conv_pw.bias"] = torch.zeros(9)
    torch.save(changed, tmp_path / "mine.pth")
    arguments = ["--weights", str(tmp_path / "mine.pth"), *SMALL]
    arguments += options if "--variant" in options else ["--variant", "d0", *options]
    assert_export_is_refused(tmp_path, capsys, arguments, code=5, words=["mine.pth", *words])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("container", ["mine.pth", "mine.safetensors"])
def test_weights_that_are_not_finite_are_rejected(tmp_path, capsys, weights, value, container):
    key = "fpn.cell.0.fnode.0.combine.edge_weights"
    changed = {**weights, key: torch.tensor([1.0, value])}
    save = save_file if container.endswith("safetensors") else torch.save
    save(changed, tmp_path / container)
    assert_export_is_refused(
        tmp_path,
        capsys,
        ["--variant", "d0", "--weights", str(tmp_path / container), *SMALL],
        code=5,
        words=[container, key, "NaN or infinite"],
    )


@pytest.mark.parametrize(
    ("variant", "size", "words"),
    [
        ("d0", "127", ["from 128 to 4096", "not 127"]),
        ("d0", "512x64", ["from 128 to 4096", "not 64"]),
        ("d7x", "255", ["from 256 to 4096", "not 255"]),
        ("d0", "4097", ["from 128 to 4096", "not 4097"]),
        ("d0", "1000000", ["from 128 to 4096"]),
        ("d0", "0", ["from 128 to 4096", "not 0"]),
        ("d0", "-512", ["-512"]),
        ("d0", "512.5", ["512.5"]),
        ("d0", "512x512x512", ["512x512x512"]),
    ],
)
def test_an_image_size_out_of_range_names_the_range(tmp_path, capsys, variant, size, words):
    assert_export_is_refused(
        tmp_path,
        capsys,
        ["--variant", variant, "--weights", "random", f"--image-size={size}"],
        code=2,
        words=words,
    )


@pytest.mark.parametrize("size", ["128", "4096", "129x500"])
def test_sizes_within_the_range_are_taken(size):
    height, _, width = size.partition("x")
    chosen = (int(height), int(width or height))
    assert get_config("d0").replace({"image_size": chosen}).image_size == chosen
