"""Mappers against ClipCap's classes written plainly, and the grid mapper against its definition."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from clipcap import MLP, TransformerMapper  # noqa: E402
from rucap.model.config import MapperConfig  # noqa: E402
from rucap.network.mapper import build_mapper  # noqa: E402

FEATURES, WIDTH, PREFIX = 12, 16, 5


def test_mlp():
    torch.manual_seed(0)
    theirs = MLP((FEATURES, 24, PREFIX * WIDTH))
    ours = build_mapper(MapperConfig("mlp", PREFIX, 2, width=24), FEATURES, 1, WIDTH)
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(4, FEATURES)
    torch.testing.assert_close(ours(features[:, None]), theirs(features).view(4, PREFIX, WIDTH))
    first, second = ours.model[0], ours.model[2]
    formula = torch.tanh(features @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(ours(features[:, None]).flatten(1), formula)


def test_single_linear_layer():
    torch.manual_seed(0)
    ours = build_mapper(MapperConfig("mlp", PREFIX, 1), FEATURES, 1, WIDTH)
    (layer,) = ours.model
    features = torch.randn(4, FEATURES)
    formula = (features @ layer.weight.T + layer.bias).view(4, PREFIX, WIDTH)
    torch.testing.assert_close(ours(features[:, None]), formula)


def test_transformer():
    torch.manual_seed(0)
    theirs = TransformerMapper(FEATURES, WIDTH, PREFIX, clip_length=4, layers=3)
    ours = build_mapper(MapperConfig("transformer", PREFIX, 3, 8, constant_length=4), FEATURES, 1, WIDTH)
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(4, FEATURES)
    torch.testing.assert_close(ours(features[:, None]), theirs(features), atol=1e-5, rtol=1e-5)


def test_grid_reads_every_cell_and_knows_its_place():
    torch.manual_seed(0)
    ours = build_mapper(MapperConfig("grid", PREFIX, 2, 4, width=24), FEATURES, 9, WIDTH).eval()
    cells = torch.randn(1, 9, FEATURES)
    prefix = ours(cells)
    assert prefix.shape == (1, PREFIX, WIDTH)
    for cell in range(9):
        changed = cells.clone()
        changed[:, cell] += 1
        assert not torch.allclose(ours(changed), prefix, atol=1e-4)
    assert not torch.allclose(ours(cells.flip(1)), prefix, atol=1e-4)
    both = ours(torch.cat([cells, cells.flip(1)]))
    torch.testing.assert_close(both[:1], prefix)


def test_grid_equals_its_definition():
    """One layer, by hand: queries and cells attend to each other, pre-norm, and the queries are read out."""
    torch.manual_seed(0)
    ours = build_mapper(MapperConfig("grid", PREFIX, 1, 2, width=8), FEATURES, 4, WIDTH).eval()
    cells = torch.randn(2, 4, FEATURES)
    (layer,) = ours.transformer.layers
    read = cells @ ours.project.weight.T + ours.project.bias + ours.positions
    hidden = torch.cat([ours.queries.expand(2, -1, -1), read], 1)
    reference = torch.nn.MultiheadAttention(8, 2, bias=True, batch_first=True)
    with torch.no_grad():
        weight = torch.cat([layer.attn.to_queries.weight, layer.attn.to_keys_values.weight])
        reference.in_proj_weight.copy_(weight)
        reference.in_proj_bias.zero_()
        reference.out_proj.load_state_dict(layer.attn.project.state_dict())
    normed = layer.norm1(hidden)
    hidden = hidden + reference(normed, normed, normed, need_weights=False)[0]
    hidden = hidden + layer.mlp.fc2(torch.relu(layer.mlp.fc1(layer.norm2(hidden))))
    expected = ours.norm(hidden[:, :PREFIX]) @ ours.output.weight.T + ours.output.bias
    torch.testing.assert_close(ours(cells), expected, atol=1e-5, rtol=1e-5)
