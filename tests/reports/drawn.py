"""Read charts as a browser does."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def parsed(text):
    """Parse a chart as a browser does when it opens the file."""
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    return root


def texts(root):
    return {each.text for each in root.iter(f"{SVG}text")}


def marks(root):
    """Return every tooltip's text with its element's left, top, right and bottom, or x and y."""
    found = []
    for each in root.iter():
        tip = each.find(f"{SVG}title")
        if tip is None:
            continue
        if each.get("d") is None:
            found.append((tip.text, float(each.get("x")), float(each.get("y"))))
            continue
        numbers = [float(number) for number in NUMBER.findall(each.get("d"))]
        xs, ys = numbers[::2], numbers[1::2]
        found.append((tip.text, min(xs), min(ys), max(xs), max(ys)))
    return found
