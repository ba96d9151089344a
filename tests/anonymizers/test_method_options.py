"""Options of methods as people type them, and what a method that is not complete says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from a3gan.anonymizers import methods
from a3gan.errors import UserError


def test_typed_by_the_signature() -> None:
    made = methods.parse_options("falco", ["margin=1e-1", "steps=25", "rows=[2,5]", "space=null", "log=12"])
    assert made == {"margin": 0.1, "steps": 25, "rows": [2, 5], "space": None, "log": "12"}
    assert methods.parse_options("blur", []) == {}
    options = methods.parse_options("pixelate", ["cells=4"])
    assert methods.create("pixelate", size=64, device="cpu", **options).cells == 4


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("falco", "margine=0.5", "no option margine; the nearest is margin"),
        ("falco", "steps=many", "steps='many'"),
        ("falco", "steps", "write KEY=VALUE"),
        ("identity", "cells=3", "it knows none"),
        ("falco", "device=cpu", "no option device"),
        ("falco", "steps=[", "not valid YAML"),
    ],
)
def test_what_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match="falco|identity|option") as error:
        methods.parse_options(name, [text])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_absent_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"method facemae: needs timm; pip install 'a3gan\[methods\]'"):
        methods.create("facemae")
    assert any("pip install" in line for line in methods.describe("facemae"))


def test_weights_of_a_method_without_any() -> None:
    with pytest.raises(UserError, match="method blur has none"):
        methods.create("blur", "a3gan_64")


def test_stages_name_their_method(tiny_weights) -> None:
    assert methods.method_of_stage("facemae") == "facemae" and methods.method_of_stage("stylegan2") is None
    assert methods.method_of_weights(tiny_weights) == "a3gan" and methods.method_of_weights("x.onnx") == "a3gan"
    with pytest.raises(UserError, match="nowhere"):
        methods.method_of_weights("nowhere")


def test_naming_the_methods_imports_none_of_them() -> None:
    code = "import sys, a3gan.anonymizers.methods; print(sorted({'torch', 'timm', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
