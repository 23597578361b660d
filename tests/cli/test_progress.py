from __future__ import annotations

import pytest

from trimtab.cli import progress
from trimtab.cli.progress import Bars


def test_a_log_file_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Bars() as bars:
        bars.show("training", 1000, 4000, "5 samples/s")
        now = 1.0
        bars.show("training", 2000, 4000)
        now = 31.0
        bars.show("training", 3000, 4000)
    assert capsys.readouterr().err == "training 1,000 of 4,000  5 samples/s\ntraining 3,000 of 4,000  \n"
