"""The package's errors: their class tree, exit codes and texts, and how they are pickled."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from effdet_deploy import errors
from effdet_deploy.errors import (
    DeviceError,
    EffdetDeployError,
    MissingPackageError,
    UnknownNameError,
    import_failure,
)

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, EffdetDeployError)
]


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    drawn = dict(re.findall(r"^ *[│├└─ ]*(\w+Error)\s+(\d)", errors.__doc__, re.MULTILINE))
    assert drawn == {each.__name__: str(each.exit_code) for each in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_exit_codes_are_those_of_the_contract(kind):
    assert kind.exit_code in {1, 2, 3, 4, 5}
    # An error keeps the exit code of its parent class, unless that is the general code 1.
    parents = [each for each in kind.__mro__[1:] if each in CLASSES and each.exit_code != 1]
    assert {each.exit_code for each in parents} <= {kind.exit_code}


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (ModuleNotFoundError("No module named 'openvino'"), MissingPackageError, "not installed"),
        (ModuleNotFoundError("No module named 'tbb'", name="tbb"), DeviceError, "'tbb'"),
        (ImportError("libtbb.so.12: cannot open"), DeviceError, "cannot be loaded: libtbb.so.12"),
    ],
)
def test_an_absent_package_and_a_broken_one_give_different_errors(raised, kind, said):
    error = import_failure(raised, "openvino", "OpenVINO", "openvino")
    assert type(error) is kind
    assert said in error.cause


def test_cause_and_remedy_are_two_sentences():
    error = EffdetDeployError("The sky fell.", "Hold it up.")
    assert str(error) == "The sky fell. Hold it up."
    assert (error.cause, error.remedy) == ("The sky fell.", "Hold it up.")
    assert str(EffdetDeployError("The sky fell.")) == "The sky fell."


def test_an_unknown_name_gives_the_nearest_three_at_most():
    error = UnknownNameError("fruit", "aple", ["apple", "ape", "maple", "staple", "pear"])
    assert "apple" in error.nearest
    assert len(error.nearest) <= 3
    assert "There is no fruit named 'aple'. Did you mean " in str(error)


def test_a_name_like_no_other_gives_the_whole_list():
    error = UnknownNameError("fruit", "zzz", ["pear", "apple"])
    assert error.nearest == ()
    assert str(error).endswith("Choose one of: apple, pear.")


def test_a_missing_package_names_the_extra_that_brings_it():
    error = MissingPackageError("torch", "exporting", "export")
    assert "pip install 'effdet-deploy[export]'" in error.remedy
    assert error.package == "torch"


@pytest.mark.parametrize(
    "error",
    [
        EffdetDeployError("The sky fell.", "Hold it up."),
        MissingPackageError("openvino", "running models", "openvino"),
        UnknownNameError("fruit", "aple", ["apple", "pear"]),
    ],
)
def test_an_error_crosses_processes_as_it_is(error):
    """Errors are pickled on their way from the builder's process and from worker processes."""
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))
    assert there.args == error.args
