"""Places in settings: as a person types them, and as the code reads them."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.errors import SettingError
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.shared import OutputSettings
from pipeline.settings.train import TrainSettings
from pipeline.settings.weights import ImportSettings

_PLACES = {"data": "set/", "output": "s3://bucket/out/", "weights": "net.safetensors"}


def test_whoever_reads_a_place_finds_it_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are absolute file:// URIs and prefixes end without a slash, in every command."""
    monkeypatch.chdir(tmp_path)
    here = f"file://{tmp_path}"
    label = LabelSettings(input="in/", output="./out", weights="net.safetensors")
    assert (label.input, label.output) == (f"{here}/in", f"{here}/out")
    assert label.weights == f"{here}/net.safetensors"
    assert OutputSettings(output=here + "/out/").output == f"{here}/out"
    for settings in (TrainSettings(run_name="run", **_PLACES), EvaluateSettings(**_PLACES)):
        assert (settings.data, settings.output) == (f"{here}/set", "s3://bucket/out")
        assert settings.weights == f"{here}/net.safetensors"
        assert settings.classes is None


@pytest.mark.parametrize(
    "source", ["https://host/net.pth?version=1", "torchvision:FCN_ResNet50_Weights.DEFAULT"]
)
def test_what_is_no_place_stays_as_it_is(source: str) -> None:
    """Names of networks and addresses in the web are taken as they are typed."""
    given = ImportSettings(network="fcn32s", source=source, output="net.safetensors")
    assert given.source == source
    assert LabelSettings(input="in", output="out", weights="random:0").weights == "random:0"


@pytest.mark.parametrize(("kind", "name"), [(LabelSettings, "input"), (OutputSettings, "output")])
def test_a_wrong_place_is_named_by_its_setting(kind: type[BaseModel], name: str) -> None:
    """A scheme that there is no store for is an error about the setting."""
    with pytest.raises(SettingError, match=f"{name}='ftp://host/x': scheme 'ftp'"):
        kind(**{"output": "out", "weights": "random:0", name: "ftp://host/x"})
