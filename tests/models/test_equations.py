"""Whole models against plain loops that share nothing with them but the weights, and hand-made gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.models.test_field_models import batch_of, made
from tests.models.test_sequence_models import msmrec, sasrec
from torch import Tensor, nn

from msmrec.data.prepare import Dataset
from msmrec.models.din import DIN
from msmrec.models.field_models import DCN, AutoInt, DCNv2, xDeepFM
from msmrec.models.layers import CausalTransformer
from msmrec.models.lightgcn import _Propagate, _SharedLogSumExp, normalised_graph


def reference_states(net: CausalTransformer, x: Tensor, lengths: Tensor) -> Tensor:
    """Pre-norm SASRec of torch's own MultiheadAttention."""
    b, n, d = x.shape
    out = torch.zeros(b, n, d)
    for r in range(b):
        k = int(lengths[r])
        s = x[r, :k] + net.position.weight[torch.arange(k - 1, -1, -1)]
        for block in net.blocks:
            mha = nn.MultiheadAttention(d, block.num_heads, batch_first=True).eval()
            with torch.no_grad():
                mha.in_proj_weight.copy_(block.qkv.weight)
                mha.in_proj_bias.copy_(block.qkv.bias)
                mha.out_proj.weight.copy_(block.out.weight)
                mha.out_proj.bias.copy_(block.out.bias)
            h = F.layer_norm(s, (d,), block.norm_attention.weight, block.norm_attention.bias)[None]
            mask = torch.ones(k, k).triu(1).bool()
            s = s + mha(h, h, h, attn_mask=mask, need_weights=False)[0][0]
            h = F.layer_norm(s, (d,), block.norm_feed.weight, block.norm_feed.bias)
            s = s + F.gelu(h @ block.up.weight.T + block.up.bias) @ block.down.weight.T + block.down.bias
        out[r, :k] = F.layer_norm(s, (d,), net.norm.weight, net.norm.bias)
    return out


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("temperature", [None, 0.05])
def test_sasrec_is_torchs_attention(heads: int, temperature: float | None) -> None:
    model = sasrec(num_heads=heads, temperature=temperature, dropout=0.0).train()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    seq, length = torch.randint(1, 41, (3, 12)), torch.tensor([12, 5, 1])
    seq = seq * (torch.arange(12) < length[:, None])
    states = reference_states(model.transformer, model.item_embedding.weight[seq], length)
    row, column = (torch.arange(12) < length[:, None]).nonzero(as_tuple=True)
    wanted, items = states[row, column], model.item_embedding.weight
    if temperature:
        wanted, items = F.normalize(wanted, dim=1) / temperature, F.normalize(items, dim=1)
    found, catalogue = model(seq, length, (row, column))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    model.eval()
    last, _ = model(seq, length, (torch.arange(3), length - 1))
    at_last = torch.stack([wanted[(row == r) & (column == length[r] - 1)][0] for r in range(3)])
    torch.testing.assert_close(last, at_last, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(model.keys(catalogue), items)


@pytest.mark.parametrize("compatibility", ["inner", "bilinear", "mlp", "attention"])
@pytest.mark.parametrize("temperature", [None, 0.05])
def test_msmrec_scores_are_its_equations(compatibility: str, temperature: float | None) -> None:
    """Loops over positions, modalities and items: e_i + sum a_k V_k y_ik in, <h, E_i> + sum w_k <R_k h, y_ik> out."""
    model = msmrec(compatibility=compatibility, temperature=temperature)
    gate, modalities, width, dim = model.gate, 3, 16, 16
    ids = model.item_embedding.weight
    value, read = model.fuse_item.view(modalities, width, dim), model.fuse_score.view(dim, modalities, width)
    y = torch.zeros(41, modalities, width)
    for i in range(41):
        for k in range(modalities):
            y[i, k] = model.vectors[i, k] @ model.expert[k]

    def score(u: Tensor, i: int, k: int) -> Tensor:
        if compatibility == "mlp":
            return gate.mlp(torch.cat([u, y[i, k]]))[0] + gate.bias[k]
        if compatibility == "bilinear":
            return (u @ gate.matrix[k]) @ y[i, k] / math.sqrt(width) + gate.bias[k]
        q = gate.query.weight @ u if hasattr(gate, "query") else u
        key = gate.key.weight @ y[i, k] if compatibility == "attention" else y[i, k]
        return q @ key / math.sqrt(width) + gate.bias[k]

    def soft(s: list[Tensor | None]) -> list[Tensor]:
        there = [x for x in s if x is not None]
        total = sum((x.exp() for x in there), torch.tensor(0.0))
        return [x.exp() / total if x is not None else torch.tensor(0.0) for x in s]

    seq = torch.tensor([5, 3, 9, 5, 17, 22])
    fused, sums, counts = [], [torch.tensor(0.0)] * modalities, [0] * modalities
    for t, i in enumerate(seq.tolist()):
        u = ids[seq[: t + 1]].mean(0)
        s = [score(u, i, k) if model.present[i, k] else None for k in range(modalities)]
        a = soft(s)
        fused.append(ids[i] + sum(a[k] * (y[i, k] @ value[k]) for k in range(modalities)))
        for k in range(modalities):
            if s[k] is not None:
                sums[k], counts[k] = sums[k] + s[k], counts[k] + 1
        w = soft([sums[k] / counts[k] if counts[k] else None for k in range(modalities)])
        h = reference_states(model.transformer, torch.stack(fused)[None], torch.tensor([t + 1]))[0, t]
        if temperature:
            h = F.normalize(h, dim=0) / temperature
        wanted = []
        for j in range(41):
            p = soft([gate.bias[k] if model.present[j, k] else None for k in range(modalities)])
            key = ids[j] + sum(p[k] * (y[j, k] @ value[k]) for k in range(modalities))
            if temperature:
                key = F.normalize(key, dim=0)
            wanted.append(h @ key + sum(w[k] * ((h @ read[:, k]) @ y[j, k]) for k in range(modalities)))
        query, items = model(seq[None, : t + 1], torch.tensor([t + 1]), (torch.tensor([0]), torch.tensor([t])))
        torch.testing.assert_close((query @ model.keys(items).T)[0], torch.stack(wanted), atol=2e-4, rtol=2e-4)


def plain_mlp(seq: nn.Sequential, x: Tensor) -> Tensor:
    for layer in seq:
        if isinstance(layer, nn.Linear):
            x = layer.weight @ x + layer.bias
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
    return x


def widen(model: nn.Module) -> None:
    torch.manual_seed(1)
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)


def test_xdeepfm_logit(tiny_clicks: Dataset) -> None:
    model, batch = made(xDeepFM, tiny_clicks, cin=(5, 3)), batch_of(tiny_clicks)
    widen(model)
    vectors, linear = model.features(batch)
    for n, x0 in enumerate(vectors[:6]):
        f, rows, out = len(x0), x0, []
        for mix in model.cin.mix:
            pairs = torch.stack([rows[i] * x0[j] for i in range(len(rows)) for j in range(f)])
            rows = mix.weight @ pairs
            out.append(rows.sum(1))
        wanted = linear[n] + model.cin_out.weight[0] @ torch.cat(out) + plain_mlp(model.deep, x0.flatten())[0]
        torch.testing.assert_close(model.logits(batch)[n], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [DCN, DCNv2])
def test_dcn_logit(cls: type, tiny_clicks: Dataset) -> None:
    model, batch = made(cls, tiny_clicks), batch_of(tiny_clicks)
    widen(model)
    for n, x0 in enumerate(model.features(batch)[0].flatten(1)[:6]):
        x = x0
        for layer in range(model.cross_layers):
            if cls is DCN:
                x = x0 * (x @ model.cross.weight[layer]) + model.cross.bias[layer] + x
            else:
                x = x0 * (model.cross.layers[layer].weight @ x + model.cross.layers[layer].bias) + x
        wanted = model.out.weight[0] @ torch.cat([x, plain_mlp(model.deep, x0)]) + model.out.bias[0]
        torch.testing.assert_close(model.logits(batch)[n], wanted, rtol=1e-3, atol=1e-3)


def test_autoint_logit(tiny_clicks: Dataset) -> None:
    model, batch = made(AutoInt, tiny_clicks, attention_dim=6, num_heads=3), batch_of(tiny_clicks)
    widen(model)
    for n, x0 in enumerate(model.features(batch)[0][:6]):
        x = x0
        for layer in model.attention:
            new = []
            for m in range(len(x)):
                heads = []
                for h in range(3):
                    r = slice(2 * h, 2 * h + 2)
                    s = torch.stack(
                        [(layer.query.weight[r] @ x[m]) @ (layer.key.weight[r] @ x[k]) for k in range(len(x))]
                    )
                    a = s.exp() / s.exp().sum()
                    heads.append(sum(a[k] * (layer.value.weight[r] @ x[k]) for k in range(len(x))))
                new.append((torch.cat(heads) + layer.residual.weight @ x[m]).clamp(min=0))
            x = torch.stack(new)
        wanted = model.out.weight[0] @ x.flatten() + model.out.bias[0] + plain_mlp(model.deep, x0.flatten())[0]
        torch.testing.assert_close(model.logits(batch)[n], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("positions", [True, False])
def test_din_logit(positions: bool, tiny_clicks: Dataset) -> None:
    """A loop over the latest max_history ratings, fewer than the batch holds."""
    model, batch = made(DIN, tiny_clicks, max_history=4, positions=positions), batch_of(tiny_clicks)
    widen(model)
    with torch.no_grad():
        model.embedding.table.weight[0] = 0  # the padding
    emb, att = model.embedding, model.attention
    one = torch.cat([p.weight for p in (att.key, att.query, att.difference, att.product)], 1)
    for n in range(8):
        length = int(batch.seq_len[n])
        q = emb.items(batch.target_item[n])
        total = torch.zeros_like(q)
        for back in range(min(4, length)):
            at = length - 1 - back
            k = (
                emb.items(batch.item_seq[n, at])
                + emb.table.weight[emb.ratings + torch.bucketize(batch.rating_seq[n, at], emb.edges, right=True)]
            )
            if positions:
                k = k + model.position.weight[back]
            x = one @ torch.cat([k, q, k - q, k * q]) + att.query.bias
            for layer in att.unit:
                x = (
                    layer.weight @ x + layer.bias
                    if isinstance(layer, nn.Linear)
                    else torch.where(x > 0, x, layer.weight * x)
                )
            total = total + x * k
        wanted = plain_mlp(model.deep, torch.cat([model.features(batch)[0][n].flatten(), total]))[0]
        torch.testing.assert_close(model.logits(batch)[n], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of gradcheck itself
def test_gradients_of_the_propagation() -> None:
    graph = normalised_graph(torch.tensor([1, 1, 2, 3]), torch.tensor([1, 2, 2, 3]), 3, 4).double()
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    for layers in (0, 1, 3):
        assert torch.autograd.gradcheck(_Propagate.apply, (x, graph, layers))


def test_gradients_of_the_shared_softmax() -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 7))
    w = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(_SharedLogSumExp.apply, (q, k, w))
