"""libeffdet has the version of the package that it belongs to."""

from __future__ import annotations

import re

from effdet_deploy import __version__
from tests.native.building import NATIVE


def test_libeffdet_and_the_package_have_one_version():
    text = (NATIVE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"project\(effdet VERSION ([\d.]+)", text) == [__version__]
