"""The encoder that comes with Quire: whole, what its card says, and good at what it is for."""

import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from core.embedding_search import Background
from core.encoders import EncoderError
from core.geometry import Image
from core.parity import edited
from resources.checkpoints import OWN_FOLDER, find_checkpoint
from resources.encoder import Encoder
from resources.encoder_folder import BACKGROUND, folder_encoder
from training.sources import drawn_pictures

OWN = Encoder(spec="quire", budget_mb=250)


@pytest.fixture(scope="module")
def pictures() -> list[Image]:
    """Drawn as those that it learnt from, with a seed that it has not seen; no charts or cards."""
    drawn = drawn_pictures(60, seed=77, workers=2)
    return [source.image for source in drawn if source.kind not in ("chart", "card")]


def test_it_is_small_and_what_its_card_says() -> None:
    weights = OWN_FOLDER / "open_clip_model.safetensors"
    assert weights.stat().st_size < 12_000_000
    card = (OWN_FOLDER / "README.md").read_text()
    digest = sha256(weights.read_bytes()).hexdigest()
    assert digest in card
    assert json.loads((OWN_FOLDER / "training.json").read_text())["weights_sha256"] == digest
    found = folder_encoder(OWN_FOLDER)
    assert found is not None
    assert found.manifest.encoder.weights_sha256 == digest
    assert found.manifest.encoder == find_checkpoint(OWN.choice()).spec
    assert OWN.describe().dim == 256


def test_copies_meet_and_other_fields_of_the_same_look_stay_apart(pictures: list[Image]) -> None:
    originals = OWN.embed(pictures)
    copies = OWN.embed([edited(image, number) for number, image in enumerate(pictures)])
    cosines = copies @ originals.T
    nearest = cosines.argmax(axis=1)
    assert np.mean(nearest == np.arange(len(pictures))) >= 0.9


def test_it_runs_without_torch_or_anything_that_converts() -> None:
    code = (
        "import sys, numpy as np; from resources.encoder import Encoder;"
        "print(Encoder(spec='quire').embed([np.eye(90, dtype=np.uint8)[..., None].repeat(3, 2)])"
        ".shape, {'torch', 'open_clip', 'timm', 'onnx', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 256) set()"


def test_open_clip_loads_it_and_computes_the_same(pictures: list[Image]) -> None:
    pytest.importorskip("torch")
    from resources.visual_tower import VisualTower

    wanted = VisualTower(find_checkpoint(OWN.choice()), cores=1).embed(pictures[:8])
    assert np.min(np.sum(wanted * OWN.embed(pictures[:8]), axis=1)) > 0.99999


def test_its_background_comes_along_and_belongs_to_it(tmp_path: Path) -> None:
    background = OWN.background()
    assert background is not None
    assert background.encoder_id == OWN.describe().encoder_id
    assert background.vectors.shape == (256, 256)

    folder = tmp_path / "copy"
    shutil.copytree(OWN_FOLDER, folder)
    moved = Encoder(spec=f"open_clip:{folder}")
    assert moved.describe() == OWN.describe()
    other = Background("another-0123456789ab", background.vectors, background.share)
    (folder / BACKGROUND).write_bytes(other.to_bytes())
    with pytest.raises(EncoderError, match="belongs to another-0123456789ab"):
        moved.background()
    (folder / BACKGROUND).write_bytes(background.to_bytes()[:-1])
    with pytest.raises(EncoderError, match="cut off"):
        moved.background()
    (folder / BACKGROUND).unlink()
    assert moved.background() is None
