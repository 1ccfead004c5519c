"""How eta moves with the coordinates that the penalty leaves alone.

They are fitted exactly before a duality gap is taken (`certificates.refit`). In a
linear model each is a column of the design for one output, so that products with all
of them are products with a narrow matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from regjax import trees
from regjax.models import has_intercept, is_linear
from regjax.types import Array, Data, Loss, Model, Params


class Moves(NamedTuple):
    """Responses of eta to each of q free coordinates.

    Attributes:
      columns: [n, m] of a linear model whose inputs are free for all outputs or none,
        q = m k in the order (column, output).
      inputs: [m] which inputs these are, -1 for the intercept; beside dense [q]; None
        for a model of unknown layout.
      dense: [q, n, k] where there are no columns.
    """

    columns: Array | None
    inputs: Array | None
    dense: Array | None

    def forward(self, delta: Array, k: int) -> Array:
        """What `delta [q]` adds to eta, [n, k]."""
        if self.columns is not None:
            return self.columns @ delta.reshape(-1, k)
        return jnp.einsum("q,qnk->nk", delta, self.dense)

    def back(self, slopes: Array) -> Array:
        """Slopes [n, k] in the free coordinates, [q]."""
        if self.columns is not None:
            if self.columns.shape[1] == 1:  # a product would depend on the slot
                return jnp.sum(trees.apart(self.columns * slopes), axis=0)
            return (self.columns.T @ slopes).reshape(-1)
        return jnp.einsum("qnk,nk->q", self.dense, slopes)

    def sizes(self, slopes: Array) -> Array:
        """Sums of the absolute terms of `back`, [q]."""
        parts = self.columns, self.dense
        columns, dense = (None if a is None else jnp.abs(a) for a in parts)
        absolute = self._replace(columns=columns, dense=dense)
        return absolute.back(jnp.abs(slopes))

    def hessian(self, loss: Loss, eta: Array, y: Array, shares: Array) -> Array:
        """Second derivative of the mean loss, [q, q]; all of eta finite."""
        a = shares[:, None]
        if self.columns is None:
            slope = jax.grad(lambda e: jnp.sum(loss.value(e, y)))
            bent = jax.vmap(lambda move: jax.jvp(slope, (eta,), (move,))[1])(self.dense)
            return jnp.einsum("qnk,rnk->qr", self.dense, a[None] * bent)
        d, u = loss.hessian(eta, y)  # pyright: ignore
        (n, m), k = self.columns.shape, eta.shape[1]
        if m == 1:  # a product would depend on the slot
            blocks = jnp.sum(trees.apart(self.columns**2 * (a * d)), axis=0)[None, None]
        else:
            blocks = jnp.einsum("nj,nl,nc->jlc", self.columns, self.columns, a * d)
        diagonal = jnp.einsum("jlc,ce->jcle", blocks, jnp.eye(k, dtype=eta.dtype))
        spread = (self.columns[:, :, None] * u[:, None, :]).reshape(n, m * k)
        return diagonal.reshape(m * k, m * k) - spread.T @ (a * spread)


class Block(NamedTuple):
    """Where the q free coordinates are among the params.

    Attributes:
      free: [q] their places in the flattened params.
      chosen: pytree of bool, the leaves that the penalty sees.
    """

    free: Array
    chosen: Any

    def apart(self, params: Params) -> bool:
        """Whether they are whole leaves, which no bounds can hold back."""
        others = trees.free_part(params, self.chosen)
        return self.free.shape[0] == sum(leaf.size for leaf in others)

    def get(self, params: Params) -> Array:
        """Their values, [q]."""
        if self.apart(params):
            return ravel_pytree(trees.free_part(params, self.chosen))[0]
        return ravel_pytree(params)[0][self.free]

    def put(self, params: Params, values: Array) -> Params:
        """Params with other values in their place."""
        if self.apart(params):
            others = trees.free_part(params, self.chosen)
            leaves = ravel_pytree(others)[1](values)  # pyright: ignore
            return trees.with_free_part(params, self.chosen, leaves)
        flat, restore = ravel_pytree(params)
        return restore(flat.at[self.free].set(values))


def size(model: Model, loss: Loss, data: Data, free: np.ndarray) -> int:
    """How many numbers `moves_of` would hold."""
    rows, k = data.X.shape[0], data.y.shape[1]
    columns = _columns(model, loss, data, free)
    return rows * (free.size * k if columns is None else columns.size)


def moves_of(
    model: Model, loss: Loss, data: Data, params: Params, free: np.ndarray
) -> Moves:
    """Responses of the coordinates at `free` in the flattened params, [q] ascending."""
    columns = _columns(model, loss, data, free)
    if columns is None:
        known = _inputs(model, data, free) if is_linear(model) else None
        return Moves(None, known, trees.jitted(_responses, model, data.X, params, free))
    X = np.asarray(data.X)
    ones = np.ones_like(X[:, :1])
    return Moves(np.where(columns < 0, ones, X[:, columns]), columns, None)


def rescaled(data: Data, scaling: tuple[Array, Array] | None) -> Data:
    """The data of a lane whose columns are standardised by its own fold."""
    if scaling is None:
        return data
    aid = data.aid
    if aid is not None and aid.moves.inputs is not None:
        moves = _rescaled(aid.moves, aid.free, data.y.shape[1], scaling)
        aid = aid._replace(moves=moves)
    else:
        aid = None  # the responses of a model of unknown layout are those of all rows
    return data._replace(scaling=scaling, aid=aid)


def _rescaled(moves: Moves, free: Array, k: int, scaling: tuple[Array, Array]) -> Moves:
    center, scale = scaling
    center = jnp.append(center, 0.0)[moves.inputs]  # the last is the intercept's
    scale = jnp.append(scale, 1.0)[moves.inputs]
    if moves.columns is not None:
        return moves._replace(columns=(moves.columns - center[None]) / scale[None])
    means = center[:, None] * jax.nn.one_hot(free % k, k, dtype=center.dtype)
    dense = (moves.dense - means[:, None, :]) / scale[:, None, None]  # pyright: ignore
    return moves._replace(dense=dense)


def _columns(
    model: Model, loss: Loss, data: Data, free: np.ndarray
) -> np.ndarray | None:
    """Which inputs of a linear model are free, -1 for the intercept.

    None where the model is another one, an input is free for some outputs only, or the
    loss has no `hessian`.
    """
    if not is_linear(model) or loss.hessian is None:
        return None
    inputs = np.unique(_inputs(model, data, free))
    return inputs if inputs.size * data.y.shape[1] == free.size else None


def _inputs(model: Model, data: Data, free: np.ndarray) -> np.ndarray:
    """Which input of a linear model each place belongs to, -1 for the intercept."""
    # The biases flatten first.
    return free // data.y.shape[1] - int(has_intercept(model))


def _responses(model: Model, X: Array, params: Params, free: Array) -> Array:
    flat, restore = ravel_pytree(params)

    def one(place: Array) -> Array:
        direction = restore(jnp.zeros_like(flat).at[place].set(1))
        return jax.jvp(lambda w: model.apply(w, X), (params,), (direction,))[1]

    return jax.vmap(one)(free)
