"""Config files: inheritance, overrides, and errors that name the file, the key and the nearest valid one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from a3gan import config
from a3gan.config import Config, all_keys, load_config, nearest_key, phase_images, to_yaml
from a3gan.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_default_yaml_is_the_schema() -> None:
    text = (CONFIGS / "default.yaml").read_text(encoding="utf-8")
    assert text.split("\n", 1)[1] == to_yaml(Config()), "run: python -m a3gan.config > configs/default.yaml"
    assert load_config(CONFIGS / "default.yaml") == Config()
    assert set(config.flatten(yaml.safe_load(text))) == set(all_keys())
    assert all("#" in line for line in text.splitlines() if line.strip())


def test_every_key_is_documented() -> None:
    assert [name for name, field in all_keys().items() if not field.description] == []


def test_bases_chain_and_stand_relative_to_their_file(tmp_path: Path) -> None:
    write(
        tmp_path / "a.yaml",
        "stage: stylegan2\ntrain: {lr: 1e-3, batch_size: 8}\nmodel: {encoder: {widths: [4, 4, 8, 8]}}",
    )
    write(tmp_path / "sub/b.yaml", "base: ../a.yaml\ntrain:\n  batch_size: 2\n")
    cfg = load_config(write(tmp_path / "sub/c.yaml", "base: b.yaml\nmodel: {encoder: {widths: [1, 2, 3, 4]}}\ndata:\n"))
    assert (cfg.stage, cfg.train.lr, cfg.train.batch_size) == ("stylegan2", 1e-3, 2)
    assert cfg.model.encoder.widths == [1, 2, 3, 4] and cfg.data == Config().data


def test_overrides_win_and_are_yaml(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "train: {lr: 0.5}")
    cfg = load_config(path, ["train.lr=2e-4", "data.path=[a.zip, b.zip]", "train.total_images=1e6", "run.name=x"])
    assert cfg.train.lr == 2e-4 and cfg.data.path == ["a.zip", "b.zip"] and cfg.train.total_images == 1_000_000
    assert cfg.run_dir == Path("runs/a3gan-x")
    assert load_config(None, ["data.path=null", "run.dir=here"]).run_dir == Path("here")
    assert load_config(None, ["train.phases.reconstruct=500"]).train.phases.reconstruct == 500


def test_saved_config_reads_back(tmp_path: Path) -> None:
    cfg = load_config(
        None,
        ["scorers.recognisers=[{path: a.onnx, kind: facenet}]", "data.path='no: 1'", "train.lr=1e-7", "run.dir='1e3'"],
    )
    config.save_config(cfg, tmp_path / "run/config.yaml")
    assert load_config(tmp_path / "run/config.yaml") == cfg


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lerning_rate=1", ["unknown key train.lerning_rate", "nearest valid key is train.lr"]),
        ("train.learning_rate=1", ["nearest valid key is train.lr"]),
        ("batchsize=4", ["nearest valid key is train.batch_size"]),
        ("model.encoder.width=[1,2]", ["nearest valid key is model.encoder.widths"]),
        ("train.lr=0", ["train.lr: ", "greater than 0", "got 0"]),
        ("train.lr=fast", ["train.lr: ", "number", "'fast'"]),
        ("train.lr=.nan", ["train.lr: ", "finite"]),
        ("train.batch_size=0", ["train.batch_size: "]),
        ("train.batch_size=true", ["train.batch_size: ", "integer"]),
        ("train.seed=3.5", ["train.seed: "]),
        ("data.size=96", ["data.size=96", "power of two"]),
        ("data.size=2048", ["data.size: ", "1024"]),
        ("data.path=5", ["data.path: "]),
        ("data.path=[]", ["data.path=[]"]),
        ("stage=gan", ["stage: ", "'stylegan2'"]),
        ("train=5", ["train: a section of keys"]),
        ("loss.rho=[0.1]", ["loss.rho: ", "3 items"]),
        ("scorers.recognisers=[{path: a, kind: foo}]", ["scorers.recognisers.0.kind: ", "'small'"]),
        ("scorers.recognisers=[{pth: a}]", ["unknown key scorers.recognisers.0.pth;", "is scorers.recognisers.0.path"]),
        ("train.identities_per_batch=3", ["train.batch_size=16", "6"]),
        ("run.dir=[1", ["not valid YAML"]),
        ("train.lr", ["write key=value"]),
        ("train.lr.x=1", ["train.lr"]),
    ],
)
def test_wrong_overrides_name_the_key(tmp_path: Path, override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path / "a.yaml", "train: {lr: 1e-3}"), [override])
    message = str(error.value)
    assert f"override {override!r}" in message and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {lr: -1}", ["base.yaml", "train.lr"]),
        ("train: {lr: 1, lr: 2}", ["base.yaml", "stands twice"]),
        ("- 1", ["base.yaml", "key: value"]),
        ("base: top.yaml", ["leads back"]),
        ("base: nowhere.yaml", ["base.yaml", "nowhere.yaml", "no such file"]),
        ("base: [1]", ["base.yaml", "one file name"]),
        ("a: [", ["base.yaml", "not valid YAML"]),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    write(tmp_path / "base.yaml", text)
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path / "top.yaml", "base: base.yaml\n"))
    assert all(word in str(error.value) for word in words), error.value


def test_missing_file_and_shipped_names() -> None:
    with pytest.raises(UserError, match="no such config"):
        load_config("configs/not/there.yaml")
    assert load_config("default") == load_config("configs/default.yaml") == Config()


def test_every_shipped_config_reads() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        if path.parent.name != "eval":  # read by `a3gan evaluate`, which has keys of its own
            load_config(path)


def test_phases_are_shares_or_images() -> None:
    assert [phase_images(v, 1000) for v in (0.0, 0.4, 1.0, 300.0, 5000.0)] == [0, 400, 1000, 300, 1000]


def test_nearest_key() -> None:
    assert nearest_key("tain.seed") == "train.seed" and nearest_key("model.scu.enable") == "model.scu.enabled"
