"""How eta moves with the coordinates that the penalty leaves alone.

They are fitted exactly before a duality gap is taken (`certificates.refit`). In a
linear model each is a column of the design for one output, so that products with all
of them are products with a narrow matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from regjax.types import Array, Data, Loss, Model, Params


class Moves(NamedTuple):
    """Responses of eta to each of q free coordinates; one of the two is None.

    Attributes:
      columns: [n, m] of a linear model, q = m k in the order (column, output).
      dense: [q, n, k].
    """

    columns: Array | None
    dense: Array | None

    def forward(self, delta: Array, k: int) -> Array:
        """What `delta [q]` adds to eta, [n, k]."""
        if self.columns is not None:
            return self.columns @ delta.reshape(-1, k)
        return jnp.einsum("q,qnk->nk", delta, self.dense)

    def back(self, slopes: Array) -> Array:
        """Slopes [n, k] in the free coordinates, [q]."""
        if self.columns is not None:
            return (self.columns.T @ slopes).reshape(-1)
        return jnp.einsum("qnk,nk->q", self.dense, slopes)

    def sizes(self, slopes: Array) -> Array:
        """Sums of the absolute terms of `back`, [q]."""
        absolute = Moves(*(None if a is None else jnp.abs(a) for a in self))
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
        blocks = jnp.einsum("nj,nl,nc->jlc", self.columns, self.columns, a * d)
        diagonal = jnp.einsum("jlc,ce->jcle", blocks, jnp.eye(k, dtype=eta.dtype))
        spread = (self.columns[:, :, None] * u[:, None, :]).reshape(n, m * k)
        return diagonal.reshape(m * k, m * k) - spread.T @ (a * spread)


def moves_of(model: Model, loss: Loss, data: Data, zeros: Params, free: Array) -> Moves:
    """Responses of the coordinates at `free` in the flattened params.

    Args:
      model: affine.
      loss: whether it knows its Hessian.
      data: rows.
      zeros: params.
      free: [q] ascending.
    """
    if model.config is not None and loss.hessian is not None:
        # Of `models.linear`: biases flatten first, then w; and the penalty leaves
        # alone all outputs of an input, or none.
        k = data.y.shape[1]
        intercepts = k if "b" in zeros[0] else 0
        inputs = (free[::k] - intercepts) // k  # -1 for the intercept
        ones = jnp.ones_like(data.X[:, :1])
        with_ones = jnp.concatenate([data.X, ones], axis=1)
        return Moves(with_ones[:, inputs], None)
    flat, restore = ravel_pytree(zeros)

    def one(place: Array) -> Array:
        direction = restore(jnp.zeros_like(flat).at[place].set(1))
        return jax.jvp(lambda w: model.apply(w, data.X), (zeros,), (direction,))[1]

    return Moves(None, jax.vmap(one)(free))
