"""Low-rank approximation of one matrix: from its factors (never forming it), or from the matrix by random sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

METHODS = ("fixed", "sv_ratio", "sv_fro", "sv_cumulative", "error")


class Svd(NamedTuple):
    """matrix = u @ diag(s) @ vh; u [m, k], s [k] descending, vh [k, n]."""

    u: torch.Tensor
    s: torch.Tensor
    vh: torch.Tensor

    def first(self, rank: int) -> Svd:
        return Svd(self.u[:, :rank], self.s[:rank], self.vh[:rank])


@dataclass(frozen=True)
class RankRule:
    """How many singular values s to keep: by `method` and `value`, and at most `rank` of them (0: no limit).

    "fixed": as many as `rank` allows. "sv_ratio": those larger than s[0] / value. "sv_fro": the fewest whose Frobenius
    norm is `value` of the whole. "sv_cumulative": the fewest whose sum is `value` of the whole. "error": the fewest
    whose rest has at most `value` of the whole Frobenius norm. (The first four are sd-scripts'.)
    """

    method: str = "fixed"
    value: float = 0.0
    rank: int = 0

    def kept(self, s: torch.Tensor) -> int:
        """How many of the singular values s, at least one."""
        limit = min(self.rank or len(s), len(s))
        return max(1, min(self._wanted(s.double()), limit))

    def _wanted(self, s: torch.Tensor) -> int:
        if self.method == "fixed" or float(s[0]) == 0:
            return len(s) if self.method == "fixed" else 1
        if self.method == "sv_ratio":
            return int((s > s[0] / self.value).sum())
        if self.method == "error":
            return int((tails(s) > self.value).sum())
        whole = s.square() if self.method == "sv_fro" else s
        share = torch.cumsum(whole, 0) / whole.sum()
        target = self.value**2 if self.method == "sv_fro" else self.value
        return int((share < target).sum()) + 1


def tails(s: torch.Tensor) -> torch.Tensor:
    """tails(s)[k] = relative Frobenius error of keeping the first k of the singular values s, k = 0 .. len(s) - 1."""
    squares = s.double().square()
    rest = torch.flip(torch.cumsum(torch.flip(squares, (0,)), 0), (0,))
    return (rest / rest[0].clamp(min=1e-300)).sqrt()


def product_svd(up: torch.Tensor, down: torch.Tensor) -> Svd:
    """The exact SVD of up @ down, up [m, r], down [r, n], at the cost of two QRs and an SVD of r x r.

    The small SVD is done in float64. (Golub and Van Loan, Matrix Computations, 4th ed., section 5.4 on products.)
    """
    q_up, r_up = torch.linalg.qr(up.float())
    q_down, r_down = torch.linalg.qr(down.float().T)
    u, s, vh = torch.linalg.svd(r_up.double() @ r_down.double().T, full_matrices=False)
    return Svd(q_up @ u.float(), s.float(), vh.float() @ q_down.T)


def random_svd(
    matrix: torch.Tensor, rank: int, oversampling: int = 10, power: int = 2, generator: torch.Generator | None = None
) -> Svd:
    """The first `rank` singular triplets of a matrix [m, n], nearly the best ones.

    Halko, Martinsson, Tropp 2011 (arXiv:0909.4061), algorithms 4.4 and 5.1: a random sample of the range, `power`
    iterations with re-orthonormalisation, then the exact SVD of the projection. Sampling as many columns as the matrix
    has makes it exact.
    """
    m, n = matrix.shape
    if m < n:
        u, s, vh = random_svd(matrix.T, rank, oversampling, power, generator)
        return Svd(vh.T, s, u.T)
    count = min(rank + oversampling, n)
    omega = torch.randn(n, count, generator=generator, dtype=matrix.dtype)
    q = torch.linalg.qr(matrix @ omega).Q
    for _ in range(power if count < n else 0):
        q = torch.linalg.qr(matrix.T @ q).Q
        q = torch.linalg.qr(matrix @ q).Q
    q_rows, r_rows = torch.linalg.qr((q.T @ matrix).T)
    u, s, vh = torch.linalg.svd(r_rows.T.double(), full_matrices=False)
    return Svd(q @ u.to(q.dtype), s.to(q.dtype), vh.to(q.dtype) @ q_rows.T).first(rank)


def relative_error(matrix: torch.Tensor, found: Svd) -> float:
    """|matrix - u s vh| / |matrix| in the Frobenius norm, measured; 0 for a matrix of zeros."""
    norm = float(torch.linalg.vector_norm(matrix))
    if norm == 0:
        return 0.0
    return float(torch.linalg.vector_norm(matrix - (found.u * found.s) @ found.vh)) / norm


def approximate(
    matrix: torch.Tensor, rule: RankRule, power: int = 2, generator: torch.Generator | None = None
) -> tuple[Svd, float]:
    """The singular triplets of a matrix [m, n] that the rule keeps, and their measured relative error.

    A rule without a fixed rank samples 32 triplets and doubles them until the rule keeps fewer than were sampled. The
    norm of what was not sampled counts as one more singular value, so that shares are those of the whole matrix
    ("sv_cumulative" needs the sum of all of them and takes the full SVD).
    """
    limit = min(matrix.shape)
    count = min(rule.rank or limit, limit) if rule.method == "fixed" else min(32, limit)
    count = limit if rule.method == "sv_cumulative" else count
    while True:
        found = random_svd(matrix, count, power=power, generator=generator)
        kept = min(rule.kept(_with_rest(matrix, found.s)), count)
        if count == limit or rule.method == "fixed" or kept <= count * 3 // 4 or 0 < rule.rank <= count:
            break
        count = min(count * 2, limit)
    return found.first(kept), relative_error(matrix, found.first(kept))


def _with_rest(matrix: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The singular values found, and the norm of the rest of the matrix as one more."""
    whole = float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
    rest = whole - float(s.double().square().sum())
    return torch.cat((s.double(), torch.tensor([max(rest, 0.0) ** 0.5], dtype=torch.float64)))
