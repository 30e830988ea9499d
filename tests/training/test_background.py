from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from core.embedding_search import BackgroundSpec
from resources.encoder import Encoder
from tests.resources.tiny_encoders import tiny_encoder
from training.background import NOT_COMPARED, sampled
from training.sources import CYCLE, drawn_pictures


def test_a_background_has_one_window_of_each_look_in_turn(tmp_path: Path) -> None:
    encoder = Encoder(spec=f"open_clip:{tiny_encoder(tmp_path / 'tiny')}")
    drawn = drawn_pictures(2 * len(CYCLE), seed=5, workers=1)
    spec = BackgroundSpec(panels=20, fewest_panels=10)
    made = sampled(drawn, encoder, spec, np.random.default_rng(0))
    assert made.encoder_id == encoder.describe().encoder_id
    assert len(made.vectors) == 20
    again = sampled(drawn, encoder, spec, np.random.default_rng(0))
    assert made.background_id == again.background_id
    charts = [source for source in drawn if source.kind in NOT_COMPARED]
    with pytest.raises(ValueError, match="needs 10"):
        sampled(charts, encoder, spec, np.random.default_rng(0))
