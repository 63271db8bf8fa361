"""Checkpoints of other projects: every map from their names to ours is one to one and correct.

Heads of whole networks must equal recorded ones. They were recorded with maps that had been checked
against the projects' own networks (differences of 1e-5 to 1.4e-4 for logits with a spread of 1.5).
The weights depend on the variables' names, so a map that confuses two variables gives other heads.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effdet_deploy.errors import UnknownNameError, UsageError, WeightsError
from effdet_deploy.pytorch.network import EfficientDet, get_config
from effdet_deploy.pytorch.weights.checkpoint import read_checkpoint
from effdet_deploy.pytorch.weights.loading import build_model
from effdet_deploy.pytorch.weights.origins import ORIGINS, origin_of
from effdet_deploy.pytorch.weights.origins.renaming import Layout
from effdet_deploy.pytorch.weights.origins.tensorbundle import read_tensorbundle
from tests.pytorch.weights.origins.forms import FORMS, automl, drawn, state_of, write_tensorbundle

SIDE, CLASSES = 128, 3
TOLERANCE = 1e-4
"""For heads of magnitude 0.2 to 3: float32 sums in another order differ by 1e-5."""


def theirs(origin: str, variant: str, **overrides: object):
    """Return a checkpoint of ``origin`` as arrays, and the state dict that it must become."""
    ours = state_of(variant, CLASSES, **ORIGINS[origin].overrides, **overrides)
    return FORMS[origin](ours), ours


VARIANTS = [
    (origin, name.removeprefix("tf_efficientdet_"))
    for origin, project in ORIGINS.items()
    for name in project.variants
]


@pytest.mark.parametrize(("origin", "variant"), VARIANTS)
def test_every_map_is_one_to_one(origin, variant):
    arrays, ours = theirs(origin, variant)
    assert origin_of(arrays) is ORIGINS[origin]
    back, unknown = ORIGINS[origin].translate(arrays, Layout.of(ours))
    assert unknown == []
    assert back.keys() == ours.keys()
    for name, value in ours.items():
        assert np.array_equal(back[name], value), name


def recorded_heads(model: EfficientDet) -> list[float]:
    """Return a few numbers of the heads for a picture of noise: mean, spread and three values."""
    image = torch.from_numpy(drawn("image", (1, 3, SIDE, SIDE)))
    with torch.no_grad():
        levels = [each for head in model.eval()(image) for each in head]
    flat = torch.cat([each.permute(0, 2, 3, 1).reshape(-1) for each in levels]).double()
    places = flat[[7, len(flat) // 3, -5]]
    return [flat.mean().item(), flat.std().item(), *places.tolist()]


HEADS: dict[tuple[str, str], list[float]] = {
    ("zylo117", "d0"): [0.004159, 0.216829, 0.018995, 0.219591, 0.09125],
    ("automl", "d0"): [0.004139, 0.216993, 0.019007, 0.21876, 0.091134],
    ("automl", "lite0"): [-0.053883, 3.172545, 2.483033, 0.622923, 0.184736],
    ("tf-object-detection", "d0"): [0.004139, 0.216993, 0.019007, 0.21876, 0.091134],
    ("tf-object-detection", "d1"): [-0.0034, 0.234302, -0.139604, -0.079272, -0.005979],
    ("zylo117", "d1"): [-0.003531, 0.233977, -0.139483, -0.079625, -0.005892],
}


@pytest.mark.parametrize(("origin", "variant"), HEADS)
def test_the_network_gives_the_recorded_heads(tmp_path, origin, variant):
    path = written(origin, tmp_path, variant)
    loaded = build_model(variant, str(path), image_size=SIDE)
    assert loaded.origin == origin
    assert recorded_heads(loaded.model) == pytest.approx(HEADS[origin, variant], abs=TOLERANCE)


def written(origin: str, folder, variant: str = "d0"):
    arrays, _ = theirs(origin, variant)
    if origin == "zylo117":
        path = folder / "efficientdet.pth"
        torch.save(
            {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, path
        )
        return path
    keys = {f"node{index}/.ATTRIBUTES/VARIABLE_VALUE": name for index, name in enumerate(arrays)}
    write_tensorbundle(folder / "ckpt-1", {key: arrays[name] for key, name in keys.items()}, keys)
    return folder / "ckpt-1"


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_variant_is_found_where_only_one_fits(tmp_path, origin):
    loaded = build_model(None, str(written(origin, tmp_path)), image_size=SIDE)
    assert loaded.base_config.name == "tf_efficientdet_d0"
    assert loaded.config.num_classes == CLASSES
    assert origin in loaded.source
    assert loaded.assumed


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.model."])
def test_prefixes_of_wrappers_are_dropped(tmp_path, prefix):
    arrays, _ = theirs("zylo117", "d0")
    state = {prefix + name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "w.pth")
    assert origin_of(read_checkpoint(tmp_path / "w.pth").state_dict) is ORIGINS["zylo117"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_origin_is_recognized_in_a_numpy_archive_too(tmp_path, origin):
    arrays, _ = theirs(origin, "d0")
    np.savez(tmp_path / "weights.npz", **arrays)
    loaded = build_model("d0", str(tmp_path / "weights.npz"), image_size=SIDE)
    assert loaded.origin == origin


def test_if_two_variants_fit_the_error_names_both(tmp_path):
    path = written("zylo117", tmp_path, "d6")
    with pytest.raises(UsageError, match="tf_efficientdet_d6 or tf_efficientdet_d7"):
        build_model(None, str(path))


def test_another_variant_is_refused(tmp_path):
    path = written("automl", tmp_path)
    with pytest.raises(WeightsError):
        build_model("d1", str(path))


def test_differences_from_effdet_s_network_are_in_the_config(tmp_path):
    zylo = build_model("d0", str(written("zylo117", tmp_path)), image_size=SIDE).config
    assert zylo.pool_padding == "zero"
    api = build_model("d0", str(written("tf-object-detection", tmp_path)), image_size=SIDE).config
    assert api.feature_blocks == ((2, 1), (4, 2), (6, 0))
    assert api.fill_color == (0, 0, 0)


def test_zero_padding_changes_the_heads():
    """With effdet's pooling the heads differ, so the field has an effect."""
    heads = []
    for padding in ("zero", "lowest"):
        ours = state_of("d0", CLASSES)
        model = EfficientDet(
            get_config("d0").replace(
                {"num_classes": CLASSES, "image_size": SIDE, "pool_padding": padding}
            )
        )
        state = {name: torch.from_numpy(value) for name, value in ours.items()}
        model.load_state_dict(state, strict=False)
        heads.append(recorded_heads(model))
    assert heads[0] != pytest.approx(heads[1], abs=3 * TOLERANCE)


def test_averaged_weights_are_taken_and_optimizer_slots_are_left_out(tmp_path):
    arrays, ours = theirs("automl", "d0")
    tensors = {"global_step": np.array(7, np.float32)}
    for name, value in arrays.items():
        tensors |= {name: value + 1, f"{name}/ExponentialMovingAverage": value}
        tensors[f"{name}/Momentum"] = value * 0
    write_tensorbundle(tmp_path / "model.ckpt-7", tensors)
    loaded = build_model("d0", str(tmp_path / "model.ckpt-7"), image_size=SIDE)
    state = loaded.model.state_dict()
    assert all(np.array_equal(state[name], value) for name, value in ours.items())


@pytest.mark.parametrize("prefix", ["efficientdet-d0/", "model/", ""])
def test_scopes_of_keras_are_no_obstacle(tmp_path, prefix):
    h5py = pytest.importorskip("h5py")
    arrays, ours = theirs("automl", "d0")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        for name, value in arrays.items():
            scope = name.partition("/")[0]
            file[f"{prefix}{scope}/{name}:0"] = value
    loaded = build_model("d0", str(tmp_path / "weights.h5"), image_size=SIDE)
    state = loaded.model.state_dict()
    assert all(np.array_equal(state[name], value) for name, value in ours.items())


def test_an_origin_that_is_named_is_taken(tmp_path):
    path = written("automl", tmp_path)
    with pytest.raises(WeightsError, match="does not fit"):
        build_model("d0", str(path), origin="effdet")
    with pytest.raises(UnknownNameError, match="origin"):
        build_model("d0", str(path), origin="tensorflow")


# --- the container ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"header_end": b"\x10\x01"}, "'old' was written on a big-endian machine"),
        ({"entry_end": b"\x3a\x00"}, "'old' stores 'layer/kernel' in slices"),
    ],
    ids=["endianness in the header", "slices in an entry"],
)
def test_a_sound_tensorflow_checkpoint_that_is_not_read_is_not_called_damaged(
    tmp_path, fields, said
):
    """The fields are those of TensorFlow's ``tensor_bundle.proto``."""
    write_tensorbundle(tmp_path / "old", {"layer/kernel": np.ones((2, 3), np.float32)}, **fields)
    with pytest.raises(WeightsError, match=said):
        read_tensorbundle(tmp_path / "old")


@pytest.fixture
def bundle(tmp_path):
    tensors = {f"layer_{index}/kernel": drawn(str(index), (3, index + 1)) for index in range(120)}
    write_tensorbundle(tmp_path / "ckpt", tensors)
    return tmp_path / "ckpt", tensors


def test_a_tensorbundle_is_read_value_by_value(bundle):
    path, tensors = bundle
    found = read_tensorbundle(path)
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], value) for name, value in tensors.items())


def test_variables_are_found_by_the_names_that_their_objects_give(tmp_path):
    value = drawn("a", (2, 2))
    names = {"net/layer/.ATTRIBUTES/VARIABLE_VALUE": "conv/kernel"}
    write_tensorbundle(tmp_path / "ckpt", dict.fromkeys(names, value), names)
    assert read_tensorbundle(tmp_path / "ckpt").keys() == {"conv/kernel"}


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_one_flipped_bit_is_noticed(bundle, suffix):
    path, _ = bundle
    file = path.with_name(path.name + suffix)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="checksum"):
        read_tensorbundle(path)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(bundle, suffix, share):
    path, _ = bundle
    file = path.with_name(path.name + suffix)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        read_tensorbundle(path)


def test_a_missing_part_is_named(bundle):
    path, _ = bundle
    part = path.with_name(path.name + ".data-00000-of-00001")
    part.unlink()
    with pytest.raises(WeightsError, match=part.name):
        read_tensorbundle(path)


@pytest.mark.parametrize("seed", range(8))
def test_changed_bytes_never_raise_another_kind_of_exception(bundle, seed):
    path, _ = bundle
    file = path.with_name(path.name + ".index")
    whole = file.read_bytes()
    random = np.random.default_rng(seed)
    for _ in range(40):
        content = bytearray(whole)
        content[random.integers(len(content))] = random.integers(256)
        file.write_bytes(content)
        try:
            read_tensorbundle(path)
        except WeightsError as error:
            said = str(error)
        else:
            said = "read"
        assert "\n" not in said


def test_a_checkpoint_is_found_by_its_folder_or_its_parts_and_the_newest_is_taken(tmp_path):
    arrays = automl(state_of("d0", CLASSES))
    for number in (1, 2):
        write_tensorbundle(tmp_path / f"ckpt-{number}", arrays)
    with pytest.raises(WeightsError, match="2 TensorFlow checkpoints"):
        read_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/somebody/run/ckpt-2"\n')
    for path in (tmp_path, tmp_path / "ckpt-2", tmp_path / "ckpt-2.index"):
        assert len(read_checkpoint(path).state_dict) == len(arrays)


def test_the_variables_of_a_saved_model_are_read(tmp_path):
    arrays = automl(state_of("d0", CLASSES))
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").touch()
    write_tensorbundle(tmp_path / "saved" / "variables" / "variables", arrays)
    assert len(read_checkpoint(tmp_path / "saved").state_dict) == len(arrays)
