"""LightGCN (He et al. 2020) as a LightningModule: vectors averaged over the user-item graph, and nothing else to learn.

The propagation is a polynomial of one symmetric sparse matrix A, P(A) = (1 + A + ... + A^K) / (K + 1). So it is
evaluated by Horner's rule, and its gradient is the same polynomial: backward multiplies by the same matrix and keeps
no layer in memory. It is done in float32 also where the rest runs in bf16: sums over thousands of neighbours lose
digits there, and sparse products in bf16 are not supported everywhere.
"""

import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.data.batches import EvalBatch
from msmrec.data.datamodule import RecDataModule
from msmrec.data.edges import EdgeBatch, EdgeLoader, training_edges
from msmrec.models.losses import ranking_loss
from msmrec.models.rec_module import RecModule


def normalised_graph(user: Tensor, item: Tensor, num_users: int, num_items: int) -> Tensor:
    """D^-1/2 A D^-1/2 of the graph with users 0..U as its first nodes and items 0..N as the others.

    Args:
        user, item: (E,) ends of the edges, each edge once.

    Returns:
        (M, M) float32 sparse CSR, M = (U + 1) + (N + 1); rows of nodes without edges are empty.
    """
    size = num_users + num_items + 2
    source, target = user.long(), item.long() + num_users + 1
    row, col = torch.cat([source, target]), torch.cat([target, source])
    order = torch.argsort(row * size + col)
    degree = torch.bincount(row, minlength=size)
    scale = degree.clamp(min=1).double().rsqrt()
    row, col = row[order], col[order]
    # Indices of 32 bits, where they fit, spare the CPU's library a conversion in each product.
    index = torch.int32 if len(row) < 2**31 else torch.int64
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Sparse CSR tensor support is in beta.*")
        return torch.sparse_csr_tensor(
            F.pad(degree.cumsum(0), (1, 0)).to(index),
            col.to(index),
            (scale[row] * scale[col]).float(),
            (size, size),
            check_invariants=True,
        )


class _Propagate(torch.autograd.Function):
    """P(A) x for a symmetric sparse A, whose gradient is P(A) g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Tensor, num_layers: int) -> Tensor:
        ctx.graph, ctx.num_layers = graph, num_layers
        return _polynomial(x, graph, num_layers)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _polynomial(grad.contiguous(), ctx.graph, ctx.num_layers), None, None


def _polynomial(x: Tensor, graph: Tensor, num_layers: int) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        x = x / (num_layers + 1)
        out = x
        for _ in range(num_layers):
            out = torch.addmm(x, graph, out)  # Horner: x + A (x + A (x + ...))
        return out


def propagate(x: Tensor, graph: Tensor, num_layers: int) -> Tensor:
    """Mean of x, A x, ..., A^K x.

    Args:
        x: (M, D) vectors of the nodes. graph: (M, M) symmetric sparse CSR. num_layers: K.

    Returns:
        (M, D); a node without edges keeps x / (K + 1).
    """
    out: Tensor = _Propagate.apply(x, graph, num_layers)  # type: ignore[no-untyped-call]
    return out


class NegativeSampler:
    """Uniform draws among the items that a user has no edge to: one draw, nothing rejected.

    With the user's items (0-based) sorted as a_0 < a_1 < ..., the r-th item that is missing is r + k, where k counts
    the j with a_j - j <= r. Those differences do not fall, so one binary search over all users' finds k.

    Args:
        user, item: (E,) the edges. num_users, num_items: U and N.
    """

    def __init__(self, user: Tensor, item: Tensor, num_users: int, num_items: int) -> None:
        self.num_items = num_items
        user, item = user.long(), item.long()
        order = torch.argsort(user * (num_items + 1) + item)
        user, item = user[order], item[order] - 1
        self.degree = torch.bincount(user, minlength=num_users + 1)
        self.start = self.degree.cumsum(0) - self.degree
        before = torch.arange(len(user), device=user.device) - self.start[user]  # j
        self.codes = user * (num_items + 1) + item - before

    def draw(self, user: Tensor, num_negatives: int) -> Tensor:
        """(B, num_negatives) items for the users (B,).

        A user with edges to all items gets item N, since there is no other.
        """
        free = (self.num_items - self.degree[user])[:, None]
        chance = torch.rand(len(user), num_negatives, dtype=torch.float64, device=user.device)
        nth = (chance * free).long()
        code = user[:, None] * (self.num_items + 1) + nth
        before = torch.searchsorted(self.codes, code, right=True) - self.start[user][:, None]
        return (nth + before + 1).clamp(max=self.num_items)


def bpr_loss(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of -log sigmoid(score of the positive - score of a negative).

    Args:
        user, positive: (B, D). negative: (B, n, D).
    """
    own = (user * positive).sum(-1, keepdim=True)
    return -F.logsigmoid(own - torch.einsum("bd,bnd->bn", user, negative)).mean()


class _SharedLogSumExp(torch.autograd.Function):
    """Sum of weight * log sum exp(queries keys') without the whole (R, N) logits in memory; gradients in one pass."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
        grad_q, grad_k = torch.empty_like(queries), torch.zeros_like(keys)
        total = queries.new_zeros(())
        chunk = max(1, (2**20 if queries.device.type == "cpu" else 2**28) // len(keys))  # what fits a cache
        split = (torch.split(x, chunk) for x in (queries, weight[:, None], grad_q))
        for q, w, out in zip(*split, strict=True):
            logits = q @ keys.T
            top = logits.amax(1, keepdim=True)
            exp = logits.sub_(top).exp_()
            mass = exp.sum(1, keepdim=True)
            total += (w * (mass.log() + top)).sum()
            torch.mul(exp @ keys, w / mass, out=out)
            grad_k.addmm_(exp.T, q * (w / mass))
        ctx.save_for_backward(grad_q, grad_k)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_q, grad_k = ctx.saved_tensors
        return grad_q * grad, grad_k * grad, None


def edge_softmax_loss(user_id: Tensor, pos_item: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """Mean cross-entropy of the edges' items under softmax(users items').

    Equals `F.cross_entropy(users[user_id] @ items.T, pos_item)`, but a user with many edges in the batch is compared
    with the items once: with thousands of edges that is several times less work.

    Args:
        user_id, pos_item: (B,) rows of users (U, D) and of items (N, D).
    """
    distinct, count = torch.unique(user_id, return_counts=True)
    with torch.autocast(users.device.type, enabled=False):
        # Embedding, not users[user_id]: the gradient of indexing adds in an order that depends on the threads.
        positive = (F.embedding(user_id, users) * F.embedding(pos_item, items)).sum()
        every: Tensor = _SharedLogSumExp.apply(F.embedding(distinct, users), items, count.float())  # type: ignore[no-untyped-call]
        return (every - positive) / len(user_id)


class LightGCN(RecModule):
    """Users and items as nodes whose vectors are the mean over K rounds of averaging with their neighbours.

    The graph is the training part, in every stage: built from the dataset, not kept in the checkpoint.

    Args:
        num_users: U, linked from the data.
        num_items: N, linked from the data.
        embedding_dim: width D.
        num_layers: K, rounds of propagation; 0 is matrix factorisation.
        loss: bpr, the paper's; or softmax of an edge's item among the items, the user's other items included.
        num_negatives: items that an edge is compared with: bpr draws them for each edge (None: one), never an item
            that the user has an edge to; softmax draws them for every 128 edges (None: all items).
        temperature: None scores by inner product; a number scores by cosine over this temperature.
        l2: times the squared length of the batch's own vectors (before propagation), divided by its edges, as in
            torch_geometric; the paper's code halves it.
        edges_above: only ratings above it are edges, of the graph and of the loss; None for all.
        leak: edges of the validation and test parts too, each user's last left out, as RALLRec's published code has
            them: for comparison with such results only.
        **optimisation: see RecModule.
    """

    serves_new_users = False  # a user is a node of the training graph

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        loss: Literal["bpr", "softmax"] = "bpr",
        num_negatives: int | None = None,
        temperature: float | None = None,
        l2: float = 1e-4,
        edges_above: float | None = None,
        leak: bool = False,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        if num_negatives is not None and num_negatives < 1:
            raise InputError(f"model.num_negatives {num_negatives}: at least 1")
        if temperature is not None and temperature <= 0:
            raise InputError(f"model.temperature {temperature}: above 0, or null")
        self.num_users, self.num_items, self.num_layers = num_users, num_items, num_layers
        self.loss, self.num_negatives, self.temperature = loss, num_negatives, temperature
        self.l2, self.edges_above, self.leak = l2, edges_above, leak
        self._whole = loss == "softmax" and num_negatives is None
        self.embedding = nn.Embedding(num_users + num_items + 2, embedding_dim)  # users 0..U, then items 0..N
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[[0, num_users + 1]] = 0  # the paddings have no edges, so they stay 0
        # Not buffers: they come from the dataset, and processes need not send them to each other.
        self.graph: Tensor | None = None
        self.sampler: NegativeSampler | None = None
        self._kept: tuple[int, int, Tensor] | None = None

    # -- graph --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Builds the graph from the training part, whatever the stage."""
        data = self.data
        if self.graph is None:
            user, item = training_edges(data.dataset, self.edges_above, self.leak)
            self.set_edges(torch.from_numpy(user), torch.from_numpy(item), data.place()[0])

    def set_edges(self, user: Tensor, item: Tensor, device: torch.device | str = "cpu") -> None:
        """Takes the graph's edges: users (E,) and items (E,), each edge once."""
        user, item = user.to(device), item.to(device)
        self.graph = normalised_graph(user, item, self.num_users, self.num_items)
        self.sampler = NegativeSampler(user, item, self.num_users, self.num_items)
        self._kept = None

    def train_loader(self, data: RecDataModule) -> EdgeLoader:
        """Shuffled edges; for the softmax over all items those of a user together, which makes it cheap."""
        device, rank, world_size = data.place()
        return EdgeLoader(
            data.dataset, data.batch_size, device, self.edges_above, self.leak, self._whole, data.seed, rank, world_size
        )

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """Which rows are edges."""
        return {
            **super().protocol(data),
            "edges_above": self.edges_above,
            **({"trained_on_test": True} if self.leak else {}),
        }

    # -- vectors ------------------------------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        """(M, D) propagated vectors: users 0..U, then items 0..N.

        Without gradients they are computed once and kept until the mode is set again (Lightning does before each
        evaluation) or the weights are loaded. Their version alone does not tell: a fused optimiser leaves it as it is.
        """
        weight = self.embedding.weight
        assert self.graph is not None, "the graph is built in setup, or given by set_edges"
        if self.graph.device != weight.device:  # Lightning takes the weights back to the CPU after a run
            self.graph = self.graph.to(weight.device)
        if torch.is_grad_enabled():
            return propagate(weight, self.graph, self.num_layers)
        key = weight.data_ptr(), weight._version
        if self._kept is None or self._kept[:2] != key:
            self._kept = (*key, propagate(weight, self.graph, self.num_layers))
        return self._kept[2]

    def train(self, mode: bool = True) -> "LightGCN":
        """Drops the vectors that were kept."""
        self._kept = None
        return super().train(mode)

    def _cosine(self, vectors: Tensor) -> Tensor:
        return vectors if self.temperature is None else F.normalize(vectors, dim=-1)

    def _asked(self, users: Tensor) -> Tensor:
        return users if self.temperature is None else F.normalize(users, dim=-1) / self.temperature

    def item_embeddings(self) -> Tensor:
        """(N + 1, D) propagated item vectors, of length 1 under a temperature."""
        return self._cosine(self()[self.num_users + 1 :])

    def vectors_to_export(self) -> dict[str, Tensor]:
        """Item and user vectors; zero for those without an edge, who were only ever pushed away, or never touched."""
        vectors = {**super().vectors_to_export(), "user_embeddings": self.user_vectors()}
        assert self.graph is not None, "the graph is built in setup, or given by set_edges"
        linked = self.graph.crow_indices().diff()[:, None] > 0  # (M, 1)
        places = {"user_embeddings": linked[: self.num_users + 1], "item_embeddings": linked[self.num_users + 1 :]}
        return {name: vector * places[name].to(vector.device) for name, vector in vectors.items()}

    def user_vectors(self) -> Tensor:
        """(U + 1, D) all users' vectors, to go with `item_embeddings`; row 0 is no user."""
        return self._asked(self()[: self.num_users + 1])

    def user_embeddings(self, batch: EvalBatch) -> Tensor:
        """(B, D) vectors of the batch's users."""
        return self._asked(F.embedding(batch.user_id, self()))

    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1) one matrix product."""
        return self.user_embeddings(batch) @ self.item_embeddings().T

    # -- training -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: EdgeBatch, batch_idx: int) -> Tensor:
        """Mean loss over the batch's edges."""
        first_item = self.num_users + 1
        nodes = [batch.user_id, batch.pos_item + first_item]
        vectors = self()
        if self.loss == "softmax":
            users, target = vectors[:first_item], batch.pos_item - 1
            items = vectors[first_item + 1 :]  # without the padding
            if self.num_negatives is None:
                loss = edge_softmax_loss(batch.user_id, target, self._asked(users), self._cosine(items))
            else:
                user = self._asked(F.embedding(batch.user_id, users))

                def keys(rows: Tensor | None) -> Tensor:
                    return self._cosine(items if rows is None else F.embedding(rows, items))

                loss = ranking_loss("sampled_softmax", user, keys, target, len(items), self.num_negatives)
        else:
            assert self.sampler is not None, "the graph is built in setup, or given by set_edges"
            neg_items = self.sampler.draw(batch.user_id, self.num_negatives or 1)
            nodes.append((neg_items + first_item).flatten())
            user, positive, negative = torch.split(F.embedding(torch.cat(nodes), vectors), [len(n) for n in nodes])
            negative = self._cosine(negative).view(*neg_items.shape, -1)
            loss = bpr_loss(self._asked(user), self._cosine(positive), negative)
        if self.l2:
            own = self.embedding(torch.cat(nodes))
            loss = loss + self.l2 * own.pow(2).sum() / len(batch.user_id)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.user_id))
        return loss
