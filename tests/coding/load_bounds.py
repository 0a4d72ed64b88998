"""Lower bounds on the load of any scheme that tolerates a straggler model, for many jobs (Krishnan et al. 2023, Theorem 4.1)."""

from fractions import Fraction


def bursty_bound(n: int, B: int, W: int, lam: int) -> Fraction:
    """Least load that tolerates every (B, W, lam)-bursty pattern on n workers. M-SGC meets it at lam = n - 1 and n."""
    if not 0 < B <= W or not 0 <= lam <= n:
        raise ValueError(f"the bursty bound needs 0 < B <= W and 0 <= lam <= n: got B={B}, W={W}, lam={lam}, n={n}")
    if B == W:
        if lam == n:
            raise ValueError(f"no scheme tolerates lam = n = {n} stragglers in every round (B = W = {B})")
        return Fraction(1, n - lam)
    return Fraction(W - 1 + B, n * (W - 1) + B * (n - lam))


def arbitrary_bound(n: int, N: int, W: int, lam: int) -> Fraction:
    """Least load that tolerates every (N, W, lam)-arbitrary pattern on n workers."""
    if not 0 <= N < W or not 0 <= lam <= n:
        raise ValueError(f"the arbitrary bound needs 0 <= N < W and 0 <= lam <= n: got N={N}, W={W}, lam={lam}, n={n}")
    return Fraction(W, n * (W - N) + N * (n - lam))
