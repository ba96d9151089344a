"""The typed schema of every YAML: each key with its type, limits, default and a description that says its unit.

`configs/default.yaml` is this schema written out (`python -m a3gan.config > configs/default.yaml`).
Adding a key = adding a field here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_whole)]  # 2e6 is a fine way to write a count
Count = Annotated[Int, Field(ge=0)]
Positive = Annotated[Int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Strict: a bool is no number, a number no word, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)


def key(default: Any, text: str, **limits: Any) -> Any:
    """A documented key; `text` becomes the comment in default.yaml and says the unit."""
    return Field(default, description=text, **limits)


def section(kind: type[Section], text: str) -> Any:
    return Field(default_factory=kind, description=text)


class Run(Section):
    dir: str | None = key(None, "folder of the run; null = runs/<stage> (runs/<stage>-<name> when named)")
    name: str | None = key(None, "a word added to the default folder's name")
    log_every: Positive = key(2000, "images between two log lines")
    sheet_every: Count = key(20000, "images between two face sheets; 0 = only at the end")
    snapshot_every: Positive = key(50000, "images between two snapshots: what a kill may lose")
    validate_every: Count = key(0, "images between two validations; 0 = only at the end")
    validate_first: bool = key(True, "also validate before the first step, for the table of before and after")
    keep_last: Count = key(1, "older snapshots kept beside the newest")
    carry: bool = key(False, "at each snapshot also carry.safetensors: what goes on elsewhere, in half precision")
    begin: str | None = key(
        None, "carry.safetensors of another run that a new one goes on from; its optimisers start anew; null = none"
    )
    best: str | None = key(
        None, "'<metric> min' or '<metric> max': keep the best validation's weights as best.safetensors; null = no"
    )
    save_patience: Weight = key(60.0, "minutes that a finished run waits for a disk that does not take it; 0 = none")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto = cuda where there is one")
    precision: Literal["float32", "bfloat16"] = key("float32", "bfloat16 = autocast of the forward passes")
    channels_last: bool = key(True, "memory layout of images and convolutions")
    threads: Count = key(0, "CPU threads; 0 = torch's own choice")
    tensorboard: bool = key(True, "also write TensorBoard events (log.jsonl is always written)")

    @model_validator(mode="after")
    def _best(self) -> Run:
        words = [] if self.best is None else self.best.split()
        if self.best is not None and (len(words) != 2 or words[1] not in ("min", "max")):
            raise ValueError(f"best={self.best!r}: must be a metric and min or max, as 'reconstruction_l1 min'")
        if words and not self.validate_every:
            raise ValueError(f"best={self.best!r}: nothing to choose from with validate_every=0; set validate_every")
        return self


class Data(Section):
    path: str | list[str] | None = key(None, "archive(s) of `a3gan prepare`; null = rendered faces")
    size: Int = key(64, "side of the faces in pixels: a power of two from 64 to 1024", ge=64, le=1024)
    frame: Literal["face", "ffhq"] = key("face", "alignment: face = eyes a third of the width apart, ffhq = a quarter")
    storage: Literal["memory", "disk", "device"] = key(
        "memory", "where pixels wait: RAM, the archive, or uint8 on the device"
    )
    synthetic_count: Positive = key(4000, "rendered faces, when path is null")
    synthetic_seed: Count = key(0, "seed of the rendered faces")
    max_outside: Share = key(0.15, "faces with more than this share of pixels outside their photo are left out")
    split_train: str = key("train", "split that trains")
    split_val: str = key("val", "split that validates; never the one that judges")
    flip: bool = key(True, "mirror half of the training faces (labels and landmarks follow)")
    jitter: float = key(
        0.0, "strength of random light and colour of training faces (attributes, identity: their own)", ge=0, le=2
    )

    @model_validator(mode="after")
    def _power_of_two(self) -> Data:
        if self.size & (self.size - 1):
            raise ValueError(f"size={self.size}: must be a power of two from 64 to 1024")
        if isinstance(self.path, list) and not self.path:
            raise ValueError("path=[]: name at least one archive, or null for rendered faces")
        return self


class Generator(Section):
    channels_base: Positive = key(4096, "channels at resolution r = min(channels_max, channels_base / r)")
    channels_max: Positive = key(128, "most channels of a layer")
    w_dim: Positive = key(256, "width of w and of a row of W+")
    z_dim: Positive = key(256, "width of the generator's own noise")
    mapping_layers: Positive = key(4, "layers from z to w")
    noise: bool = key(False, "per-pixel noise inputs; off makes an anonymised face a function of its seed alone")
    weights: str | None = key(
        None, "a trained generator: our checkpoint, or public StyleGAN2 weights (.pt, .safetensors); null = random"
    )
    freeze: bool = key(False, "keep the generator fixed in stage a3gan")


class Discriminator(Section):
    channels_base: Positive = key(4096, "as the generator's")
    channels_max: Positive = key(128, "most channels of a layer")
    mbstd_group: Positive = key(4, "images a group of the minibatch standard deviation")
    weights: str | None = key(None, "stage a3gan: the carry.safetensors it starts from, see run.carry; null = random")


class Encoder(Section):
    kind: Literal["narrow", "ir_se50"] = key("narrow", "narrow = ours, ir_se50 = paper scale (widths, depth ignored)")
    widths: list[Positive] = key(
        [32, 64, 128, 256], "channels at full, 1/4, 1/8 and 1/16 of the width", min_length=4, max_length=4
    )
    depth: Positive = key(1, "residual blocks a level")
    lateral: Positive = key(48, "channels of the fusion's pyramid")
    weights: str | None = key(
        None, "a checkpoint of stage a3gan whose trunk and suppressive units it starts from; null = random"
    )


class Scu(Section):
    enabled: bool = key(True, "semantic suppression; false = ablation 'no SCU'")
    levels: list[Literal[1, 2, 3]] = key(
        [1, 2, 3], "levels with an SCU: 1 fine, 2 mid, 3 coarse", min_length=1, max_length=3
    )
    filler: bool = key(True, "low-pass filler behind the gate; false = ablation 'gate without filler'")
    reduction: Positive = key(16, "squeeze of the channel gate")


class AiNet(Section):
    hidden: Positive = key(256, "width of the MLPs")
    z_dim: Positive = key(64, "width of a new face's seed")
    code: Positive = key(256, "width of the injection code e")
    policy: bool = key(True, "condition on the policy c; false = ablation 'AINet without c'")


class Attributes(Section):
    backbone: Literal["plain", "residual"] = key("plain", "plain = attributes_loss, residual = attributes_judge")
    width: Positive = key(32, "channels of the first layer")


class Identity(Section):
    width: Positive = key(32, "channels of the first layer")
    dim: Positive = key(128, "width of the embedding")


class FaceMae(Section):
    patch: Positive = key(8, "side of a patch in pixels")
    width: Positive = key(128, "width of the encoder's tokens: a multiple of 4 and of the heads")
    depth: Positive = key(6, "blocks of the encoder")
    heads: Positive = key(4, "attention heads of the encoder")
    decoder_width: Positive = key(96, "width of the decoder's tokens: a multiple of 4 and of its heads")
    decoder_depth: Positive = key(2, "blocks of the decoder")
    decoder_heads: Positive = key(3, "attention heads of the decoder")
    ratios: list[Annotated[float, Field(gt=0, lt=1)]] = key(
        [0.75], "share of patches left out; of several, each step draws one", min_length=1
    )
    phi: Literal["recogniser", "random"] = key(
        "recogniser", "what relations are seen through: scorers.recognisers, or untrained convolutions (leakage-free)"
    )
    related: Share = key(
        1.0, "share of a batch that is groups of train.images_per_identity pictures of one person; the rest is anyone's"
    )


class Pool(Section):
    truncation: Share = key(0.7, "factor on the distance of a drawn code from the mean; 0 = the mean face")
    rank: Positive = key(128, "coordinates of a code, where codes come from a Gaussian around the encoder's")


class Diffusion(Section):
    widths: list[Positive] = key(
        [32, 48, 64], "channels of the U-Net at 1/2, 1/4 .. of the side: multiples of 8 and of heads", min_length=2
    )
    heads: Positive = key(2, "attention heads")
    context: Positive = key(64, "width of a condition's tokens")
    tokens: Positive = key(4, "tokens of the condition of one bin of time")
    patch: Positive = key(2, "side of the pixel patches that the U-Net works on")
    rank: Count = key(48, "main directions of faces that the Gaussian prior knows; 0 = no prior")
    drop: Share = key(0.25, "share of faces that train under the null condition")


class Msi(Section):
    heads: Positive = key(8, "attention heads")
    head_dim: Positive = key(8, "width of a head")
    dropout: Share = key(0.05, "dropout in and behind the attention layers")


class Model(Section):
    weights: str | None = key(
        None, "path or name of trained weights to go on from: A3GAN (stage a3gan), diffusion (stage msi); null = random"
    )
    generator: Generator = section(Generator, "StyleGAN2 generator")
    discriminator: Discriminator = section(Discriminator, "StyleGAN2 discriminator")
    encoder: Encoder = section(Encoder, "encoder with three taps")
    scu: Scu = section(Scu, "suppressive convolution units")
    ainet: AiNet = section(AiNet, "attribute-aware injective network")
    attributes: Attributes = section(Attributes, "attribute network (stage attributes)")
    identity: Identity = section(Identity, "our own small recogniser (stage identity)")
    pool: Pool = section(Pool, "generated faces (stage falco)")
    facemae: FaceMae = section(FaceMae, "masked autoencoder (stage facemae)")
    diffusion: Diffusion = section(Diffusion, "U-Net of Diff-Privacy (stages diffusion, msi)")
    msi: Msi = section(Msi, "multi-scale image inversion of Diff-Privacy (stages diffusion, msi)")


class Loss(Section):
    attributes_move: Weight = key(0.5, "L_aa, times alpha: attributes that may change move; 0 = ablation")
    proposal_far: Weight = key(0.5, "L_ap, times alpha: the proposal is far from the original")
    identity: Weight = key(1.0, "L_id, times alpha: cosine to the original inside the margin; 0 = ablation")
    realise: Weight = key(0.5, "L_real: the proposal comes true in the image; 0 = ablation")
    diversity: Weight = key(0.1, "L_div, times alpha: two seeds give two faces")
    keep: Weight = key(1.0, "L_keep: protected attributes stay")
    geometry: Weight = key(5.0, "landmarks over the eye distance, eye and mouth opening")
    perceptual: Weight = key(1.0, "perceptual distance, 0.8 outside and 0.2 inside the face mask")
    tint: Weight = key(0.0, "L_tint: the colour of the light stays, square by square; brightness is free")
    reconstruction: Weight = key(1.0, "at alpha = 0: L2 + 0.8 perceptual + 0.1 (1 - cosine)")
    reconstruction_pixel: Weight = key(
        1.0, "weight of the L2 in the reconstruction and, where alpha > 0, around the face; more beside small features"
    )
    reconstruction_identity: bool = key(True, "false = no cosine in it, which saves a recogniser pass")
    suppression: Weight = key(0.1, "gradient reversal on the suppressed features")
    gate_budget: Weight = key(1.0, "(mean gate - rho) squared, per level")
    adversarial: Weight = key(0.1, "adversarial loss of the anonymised face")
    code: Weight = key(0.005, "mean squared injection")
    latent: Weight = key(0.05, "latent discriminator on rows of w'")
    injective: Weight = key(0.05, "L_inj: the proposal can be read back from w' - w_sup")
    relation: Weight = key(1.0, "stage facemae: L_IRM, relations of the reconstructed faces are those of the originals")
    relation_moments: Weight = key(0.0, "stage facemae: mean and covariance of the embeddings of both sets")
    relation_cross: Weight = key(0.0, "stage facemae: relations across the sets; it makes originals easy to retrieve")
    relation_pixel: Weight = key(1.0, "stage facemae: lambda, mean squared error over all patches")
    m_id: float = key(0.05, "cosine margin of the identity term", ge=0, le=1)
    m_a: Weight = key(3.0, "logit margin of attributes_move")
    m_div: float = key(0.3, "cosine margin of the diversity term", ge=0, le=1)
    rho: list[Share] = key(
        [0.15, 0.25, 0.35], "gate budget of levels 1, 2, 3: share suppressed", min_length=3, max_length=3
    )
    adversarial_kind: Literal["logistic", "relativistic"] = key(
        "logistic", "logistic = every image by itself, relativistic = pairs of a real and a generated one (R3GAN)"
    )
    r1_gamma: Weight = key(10.0, "weight of the gradient penalty R1, at real faces")
    r2_gamma: Weight = key(0.0, "weight of the gradient penalty R2, at generated faces; 0 = none")
    r1_every: Positive = key(16, "steps between two penalties R1 and R2 (their weights are scaled up by it)")
    path_length: Weight = key(
        0.0, "path length regularisation of the generator, stage stylegan2 (Karras et al. 2020: 2); 0 = none"
    )
    path_length_every: Positive = key(4, "steps between two path length penalties (the weight is scaled up by it)")


class Phases(Section):
    discriminator_rests: Weight = key(
        0.0, "stage a3gan: without the adversarial term at first: share of total_images, or images when above 1"
    )
    reconstruct: Weight = key(0.4, "encoder alone at alpha = 0: share of total_images, or images when above 1")
    suppress: Weight = key(0.2, "SCUs on, AINet off: share of total_images, or images when above 1")


class Train(Section):
    lr: float = key(1e-4, "learning rate of Adam", gt=0, le=1)
    lr_generator: float = key(1e-4, "learning rate of the generator, where it trains", gt=0, le=1)
    lr_discriminator: float = key(2e-5, "learning rate of the discriminators", gt=0, le=1)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = key([0.0, 0.99], "Adam's betas", min_length=2, max_length=2)
    batch_size: Positive = key(16, "images a step, of all processes together")
    accumulate: Positive = key(1, "parts of a process's share of the batch, one after another: less memory, more time")
    total_images: Positive = key(200000, "images to see in all")
    seed: Count = key(0, "every random number of the run follows from it")
    ema_half_life: Count = key(10000, "half-life of the averaged weights, in images; 0 = no averaging")
    warmup_images: Count = key(0, "images over which the learning rate rises from 0")
    phases: Phases = section(Phases, "stage a3gan: what comes before joint training")
    augment: Literal["none", "diffaugment", "ada"] = key("diffaugment", "augmentation of what the discriminator sees")
    ada_target: float = key(
        0.6, "ada: mean sign of the logits of real faces that it holds; lower augments sooner", gt=-1, lt=1
    )
    ada_images: Positive = key(500000, "ada: images over which its probability may move from 0 to 1")
    mixing: Share = key(0.9, "stage stylegan2: share of images whose fine rows come from a second code")
    identities_per_batch: Count = key(0, "P of P x Q batches by identity; 0 = plain batches")
    images_per_identity: Positive = key(2, "Q of P x Q batches")
    grad_clip: Weight = key(0.0, "largest norm of a network's gradient; 0 = no clipping")

    @model_validator(mode="after")
    def _fits(self) -> Train:
        wanted = self.identities_per_batch * self.images_per_identity
        if wanted and wanted != self.batch_size:
            text = f"must be identities_per_batch x images_per_identity = {wanted}"
            raise ValueError(f"batch_size={self.batch_size}: {text}")
        return self


class Recogniser(Section):
    path: str = key("", "path or name of the weights")
    kind: Literal["mobilefacenet_a", "mobilefacenet_b", "facenet", "small"] = key("small", "family of the network")


class Scorers(Section):
    recognisers: list[Recogniser] = key(
        [], "of the identity terms: {path, kind: mobilefacenet_a|mobilefacenet_b|facenet|small}"
    )
    watcher: Recogniser | None = key(
        None, "another recogniser that only watches: its cosines stand beside the training ones'; {path, kind}"
    )
    attributes: str | None = key("attributes_loss", "path or name of the attribute network of the losses")
    attributes_kind: Literal["plain", "residual"] = key("plain", "its backbone")
    perceptual: Literal["attributes", "lpips"] = key("attributes", "features of the perceptual terms")
    lpips_backbone: str | None = key(None, "local file of lpips' backbone weights; null = lpips downloads it")
    farl: str | None = key(None, "FaRL's weights, whose features then choose neighbours (stage falco); null = ours")


class Config(Section):
    stage: Literal["stylegan2", "identity", "attributes", "a3gan", "facemae", "falco", "diffusion", "msi"] = key(
        "a3gan", "what is trained"
    )
    run: Run = section(Run, "the run: folder, logs, machine")
    data: Data = section(Data, "training faces")
    model: Model = section(Model, "networks")
    loss: Loss = section(Loss, "weights and margins; a weight of 0 switches a term off")
    train: Train = section(Train, "optimisation; everything is counted in images")
    scorers: Scorers = section(Scorers, "frozen networks of the losses; they may not judge")

    @property
    def run_dir(self) -> Path:
        """The run's folder; relative ones start at the working folder."""
        return Path(self.run.dir or f"runs/{self.stage}" + (f"-{self.run.name}" if self.run.name else ""))


def phase_images(value: float, total: int) -> int:
    """Length of a phase in images: `value` up to 1 is a share of `total`, above it a number of images."""
    return round(value * total) if value <= 1 else min(int(value), total)
