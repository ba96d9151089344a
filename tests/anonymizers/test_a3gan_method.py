import pytest
import torch

from a3gan import checkpoint
from a3gan.anonymizers.a3gan import A3ganAnonymizer
from a3gan.data.attributes import Policy
from a3gan.errors import UserError
from a3gan.scorers.attributes import AttributeNetwork
from a3gan.scorers.measured import attribute_logits


@pytest.fixture(scope="module")
def method(tiny_weights):
    return A3ganAnonymizer(tiny_weights, device="cpu")


@pytest.fixture(scope="module")
def faces():
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_contract(method, faces):
    out = method.anonymize(faces, policy=Policy.parse("everything"), seeds=range(5))
    assert out.shape == faces.shape and out.dtype == torch.float32 and out.abs().max() <= 1
    assert not out.requires_grad
    assert torch.equal(out, method.anonymize(faces, policy=Policy.parse("everything"), seeds=range(5)))


def test_independent_of_the_batch(method, faces):
    many = method.anonymize(faces.repeat(4, 1, 1, 1), seeds=list(range(5)) * 4)  # more than one pass
    alone = torch.cat([method.anonymize(faces[i : i + 1], seeds=[i]) for i in range(5)])
    assert (many[:5] - alone).abs().max() <= 1e-5
    assert (many[15:] - alone).abs().max() <= 1e-5


def test_seed_policy_and_alpha_matter(method, faces):
    def run(policy="everything", seeds=(1,) * 5, alpha=1.0):
        return method.anonymize(faces, policy=Policy.parse(policy), seeds=seeds, alpha=alpha)

    base = run()
    assert (run(seeds=(2,) * 5) - base).abs().max() > 1e-4
    assert (run(policy="fatigue") - base).abs().max() > 1e-4
    assert (run(alpha=0.3) - base).abs().max() > 1e-4
    torch.testing.assert_close(run(alpha=0.0), method.model.reconstruct(faces).clamp(-1, 1), atol=1e-5, rtol=0)
    assert torch.equal(run(alpha=0.0, seeds=(9,) * 5), run(alpha=0.0))


def test_no_policy_is_the_default_preset(method, faces):
    assert torch.equal(method.anonymize(faces, seeds=[0] * 5), method.anonymize(faces, policy=Policy(), seeds=[0] * 5))


def test_alpha_out_of_range(method, faces):
    with pytest.raises(UserError, match="alpha 1.5"):
        method.anonymize(faces, alpha=1.5)


def test_acceptable_refuses_what_is_not_finite(method, faces):
    after = faces.clone()
    after[2, 0, 5, 5] = float("nan")
    assert method.acceptable(faces, after).tolist() == [True, True, False, True, True]


def test_foreign_checkpoints(tmp_path, tiny_weights):
    tensors, meta = checkpoint.load(tiny_weights)
    other = checkpoint.save(tmp_path / "g.safetensors", tensors, meta | {"stage": "stylegan2"})
    with pytest.raises(UserError, match="stage 'stylegan2'"):
        A3ganAnonymizer(other, device="cpu")
    state = checkpoint.save(tmp_path / "s.safetensors", tensors, meta | {"kind": "state"})
    with pytest.raises(UserError, match="beside it"):
        A3ganAnonymizer(state, device="cpu")
    bare = checkpoint.save(tmp_path / "b.safetensors", tensors, {"stage": "a3gan"})
    with pytest.raises(UserError, match="config"):
        A3ganAnonymizer(bare, device="cpu")
    cut = {k: v for k, v in tensors.items() if not k.startswith("attributes.eyes")}
    with pytest.raises(UserError, match="'attributes'"):
        A3ganAnonymizer(checkpoint.save(tmp_path / "c.safetensors", cut, meta), device="cpu")
    with pytest.raises(UserError, match="nowhere"):
        A3ganAnonymizer("nowhere", device="cpu")


def test_attribute_network_stored_as_trained(tmp_path, tiny_weights, faces):
    tensors, meta = checkpoint.load(tiny_weights)
    network = AttributeNetwork("plain", 8)
    tensors = {k: v for k, v in tensors.items() if k.startswith("model.")}
    tensors |= checkpoint.prefixed({"attributes": network})
    method = A3ganAnonymizer(checkpoint.save(tmp_path / "t.safetensors", tensors, meta), device="cpu")
    expected = attribute_logits(network.eval()(faces), faces)
    torch.testing.assert_close(method.logits(faces), expected, atol=1e-4, rtol=1e-4)


def test_threads_may_share_it(method, faces):
    """Each thread's results are judged by the points of its own faces."""
    from concurrent.futures import ThreadPoolExecutor

    assert method.concurrent

    def one(i):
        before = faces[i : i + 2]
        after = method.anonymize(before, seeds=[i, i + 1])
        return after, *method.judged(before, after)

    alone = [one(i % 4) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(one, [i % 4 for i in range(16)]))
    for i, (old, new) in enumerate(zip(alone, beside, strict=True)):
        for a, b in zip(old, new, strict=True):
            assert torch.equal(a, b)
        torch.testing.assert_close(new[2][:, 0], method.points(faces[i % 4 : i % 4 + 2]), atol=1e-5, rtol=0)


def test_the_originals_are_read_once(method, faces, monkeypatch):
    read = []
    monkeypatch.setattr(type(method), "read", lambda self, x: read.append(len(x)) or self.attributes(x)["landmarks"])
    after = method.anonymize(faces)
    plain = method.acceptable(faces, after)
    assert sum(read) == len(faces)  # of the result only
    assert torch.equal(plain, method.acceptable(faces, after)) and sum(read) == 3 * len(faces)
