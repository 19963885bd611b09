from pathlib import Path

import pytest
import timm
import torch
from norms import with_statistics
from small_networks import load, saved, small, small_config

from pipeline.errors import UserError
from pipeline.models.weights import load_weights

#: One of each way in which timm makes a feature extractor of a classifier.
MODELS = ["regnetx_002", "mobilenetv3_small_050", "xception41", "convnext_atto", "twins_svt_small"]


@pytest.mark.parametrize("name", MODELS)
def test_the_backbone_gets_what_timms_own_loader_gives_it(name: str, tmp_path: Path) -> None:
    state = with_statistics(timm.create_model(name), torch.randn(1, 3, 224, 224)).state_dict()
    theirs = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay={"state_dict": state}
    )
    settings = {"backbone": f"timm/{name}"}
    model = small(**settings)
    report = load(model, saved(state, tmp_path / "model.pth"), **settings)
    body = model.backbone.get_submodule("body").state_dict()
    assert body.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(body[key], value), key
    assert len(report.left_out) + len(body) == len(state)


def test_a_classifier_of_other_classes_gives_its_features(tmp_path: Path) -> None:
    theirs = timm.create_model("regnetx_002", num_classes=3)
    settings = {"backbone": "timm/regnetx_002"}
    report = load(small(**settings), saved(theirs.state_dict(), tmp_path / "m.pth"), **settings)
    assert set(report.left_out) == {"head.fc.weight", "head.fc.bias"}


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    file = saved(timm.create_model("regnetx_002").state_dict(), tmp_path / "regnetx_002.pth")
    settings = {"backbone": "timm/regnety_002"}
    with pytest.raises(UserError, match=r"timm/regnety_002: timm does not take") as error:
        load(small(**settings), file, **settings)
    assert "\n" not in str(error.value)


def test_our_own_checkpoint_with_a_timm_backbone_loads(tmp_path: Path) -> None:
    config = small_config(backbone="timm/regnetx_002", weights=str(tmp_path / "model.pth"))
    trained, model = (small(backbone="timm/regnetx_002") for _ in range(2))
    saved(trained.state_dict(), tmp_path / "model.pth")
    report = load_weights(model, config)
    assert report.random == report.left_out == ()
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
