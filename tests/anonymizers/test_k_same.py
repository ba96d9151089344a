import pytest
import torch

from a3gan.anonymizers.k_same import EigenSpace, KSame, k_same_mean
from a3gan.errors import UserError


def flat(*values: float) -> torch.Tensor:
    """Pictures of one value each, [N, 3, 2, 2]."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()


def test_clusters_by_hand():
    # 0 takes 0.1; 0.5 takes 0.6; the three left (fewer than 2k) are one cluster.
    faces = flat(0.0, 0.5, 0.1, 0.9, 0.6, 1.0, 0.8)
    means = k_same_mean(faces, 2)[:, 0, 0, 0]
    torch.testing.assert_close(means, torch.tensor([0.05, 0.55, 0.05, 0.9, 0.55, 0.9, 0.9]))


def test_k_of_one_is_the_face_and_k_of_all_the_mean_face():
    faces = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(k_same_mean(faces, 1), faces)
    torch.testing.assert_close(k_same_mean(faces, 5), faces.mean(0).expand_as(faces))


@pytest.mark.parametrize(("count", "k"), [(10, 2), (11, 2), (23, 5), (30, 7), (9, 9)])
def test_every_result_stands_there_at_least_k_times(count, k):
    faces = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))
    result = k_same_mean(faces, k).flatten(1)
    same = (result[:, None] - result[None]).abs().amax(2) == 0
    assert (same.sum(1) >= k).all()
    # Means of a partition keep the mean of the set.
    torch.testing.assert_close(result.mean(0), faces.flatten(1).mean(0), atol=1e-6, rtol=0)


def test_equal_pictures_share_a_cluster():
    faces = torch.cat([flat(0.3, 0.3, 0.3), flat(0.9, 0.9, 0.9)])
    torch.testing.assert_close(k_same_mean(faces, 3), faces)


def test_k_out_of_range():
    for k in (0, 4):
        with pytest.raises(UserError, match="k_same: k"):
            k_same_mean(flat(0.1, 0.2, 0.3), k)


def test_distance_is_that_of_the_pixels_when_all_components_are_kept():
    faces = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    space = EigenSpace(faces, variance=1.0)
    expected = torch.cdist(faces.flatten(1).double(), faces.flatten(1).double())
    torch.testing.assert_close(space.distances(faces), expected, atol=1e-6, rtol=1e-6)
    assert EigenSpace(faces, variance=0.5).axes.shape[1] < space.axes.shape[1]


def test_the_method_is_the_mean_of_the_nearest_of_the_gallery(tiny_pool):
    method = KSame(tiny_pool, device="cpu", k=3)
    out = method.anonymize(method.gallery[[4, 7]])
    distance = method.space.distances(method.gallery[[4, 7]])
    assert distance.argmin(1).tolist() == [4, 7]
    for row in range(2):
        wanted = method.gallery[distance[row].argsort()[:3]].mean(0)
        torch.testing.assert_close(out[row], wanted)
    assert torch.equal(out, method.anonymize(method.gallery[[4, 7]], seeds=[8, 9]))  # seeds change nothing
    torch.testing.assert_close(out[1:], method.anonymize(method.gallery[[7]]), atol=1e-6, rtol=0)
    assert torch.equal(KSame(tiny_pool, device="cpu", k=1).anonymize(method.gallery[[4]])[0], method.gallery[4])


def test_the_method_refuses(tiny_pool):
    with pytest.raises(UserError, match="gallery's"):
        KSame(tiny_pool, device="cpu", k=1000)
    with pytest.raises(UserError, match="alpha must be 1"):
        method = KSame(tiny_pool, device="cpu")
        method.anonymize(method.gallery[:1], alpha=0.5)
