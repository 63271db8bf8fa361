"""The pyramids, written down by hand for three levels: inputs 0-2, nodes from 3 on."""

from __future__ import annotations

import pytest

from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.network import get_config
from effdet_deploy.pytorch.network.topology import FPN_NAMES, fpn_topology

BY_HAND = {
    "fpn": ([(5, (2,)), (4, (1, 3)), (3, (0, 4))], (5, 4, 3)),
    "pan": (
        [(5, (2,)), (4, (1, 3)), (3, (0, 4)), (3, (5,)), (4, (4, 6)), (5, (3, 7))],
        (6, 7, 8),
    ),
    "bifpn": ([(4, (1, 2)), (3, (0, 3)), (4, (1, 3, 4)), (5, (2, 5))], (4, 5, 6)),
}


@pytest.mark.parametrize("shape", BY_HAND)
@pytest.mark.parametrize("fusion", ["fa", "attn", "sum", "unbounded"])
def test_three_levels_are_joined_as_in_figure_2(shape, fusion):
    nodes, outputs = BY_HAND[shape]
    topology = fpn_topology(f"{shape}_{fusion}", 3, 5)
    assert [(node.level, node.inputs) for node in topology.nodes] == nodes
    assert topology.outputs == outputs


ADJACENT = [each for each in FPN_NAMES if not each.startswith("nasfpn")]


@pytest.mark.parametrize("name", ADJACENT)
@pytest.mark.parametrize("max_level", [7, 8])
def test_every_pyramid_is_sound(name, max_level):
    topology = fpn_topology(name, 3, max_level)
    num_levels = max_level - 3 + 1
    levels = list(range(3, max_level + 1))
    for index, node in enumerate(topology.nodes):
        # A node takes only earlier nodes, of its own level or a neighboring one.
        assert all(each < num_levels + index for each in node.inputs)
        seen = [*levels, *(before.level for before in topology.nodes)]
        assert all(abs(seen[each] - node.level) <= 1 for each in node.inputs)
        assert len(set(node.inputs)) == len(node.inputs)
    created = [*levels, *(node.level for node in topology.nodes)]
    assert [created[index] for index in topology.outputs] == levels


@pytest.mark.parametrize("name", FPN_NAMES)
def test_every_input_reaches_an_output(name):
    topology = fpn_topology(name, 3, 7)
    used = {each for node in topology.nodes for each in node.inputs} | set(topology.outputs)
    assert used == set(range(5 + len(topology.nodes)))


def test_bifpn_of_five_levels_has_the_eight_nodes_of_the_paper():
    topology = fpn_topology("bifpn_fa", 3, 7)
    assert [node.level for node in topology.nodes] == [6, 5, 4, 3, 4, 5, 6, 7]
    assert [len(node.inputs) for node in topology.nodes] == [2, 2, 2, 2, 3, 3, 3, 2]


def test_nasfpn_has_the_seven_cells_of_its_search():
    topology = fpn_topology("nasfpn_sum", 3, 7)
    assert [(node.level, node.fusion, node.inputs) for node in topology.nodes] == [
        (4, "pooled", (3, 1)),
        (4, "sum", (1, 5)),
        (3, "sum", (0, 6)),
        (4, "sum", (6, 7)),
        (5, "pooled", (8, 7, 2)),
        (7, "pooled", (9, 6, 4)),
        (6, "pooled", (10, 9)),
    ]
    assert topology.outputs == (7, 8, 9, 11, 10)


def test_nasfpn_needs_five_levels():
    with pytest.raises(UsageError, match=r"nasfpn_sum has 5 levels, not 6 \(3-8\)"):
        get_config("d7x").replace({"fpn_name": "nasfpn_sum"})
