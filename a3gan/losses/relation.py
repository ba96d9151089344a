"""Instance relation matching (IRM): a set of made faces relates within itself as the set of real ones does.

FaceMAE (Wang et al., arXiv 2205.11090) names the module; the equations are ours. With the unit embeddings Z of N real
faces and Z' of those made from them, R = Z Zᵀ and R' = Z' Z'ᵀ [N, N] hold all cosines. R is the same for any common
rotation of Z: so R' can match it, who is like whom, while no made face is near its own original. What compares Z' with
Z gives that up: `cross`.
"""

from __future__ import annotations

from torch import Tensor


def instance_relation(made: Tensor, real: Tensor) -> Tensor:
    """L_IRM of each face: (1/N) Σ_j (R'_ij - R_ij)², [N, E], [N, E] of unit length -> [N], in [0, 4].

    Its mean is (1/N²) ‖R' - R‖_F². 0: all relations are kept. A batch of strangers has R near the identity and teaches
    nothing: batches hold several pictures of a person.
    """
    return (made @ made.T - real @ real.T).square().mean(1)


def cross(made: Tensor, real: Tensor) -> Tensor:
    """(1/N) Σ_j (z'_i · z_j - R_ij)² of each face, [N, E], [N, E] of unit length -> [N], in [0, 4].

    It pulls each made face to its own original, which makes retrieval of the original easy: off where privacy counts.
    """
    return (made @ real.T - real @ real.T).square().mean(1)


def moments(made: Tensor, real: Tensor) -> Tensor:
    """‖mean Z' - mean Z‖² + ‖Cov Z' - Cov Z‖_F², [N, E], [M, E] -> scalar, >= 0; covariances with 1/N.

    The gap between the two sets as a whole; like `cross` it is bound to the axes of the real embeddings.
    """
    first = (made.mean(0) - real.mean(0)).square().sum()
    return first + (_covariance(made) - _covariance(real)).square().sum()


def _covariance(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred.T @ centred / len(z)
