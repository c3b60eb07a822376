"""python -m engine: what all commands have in common."""

from __future__ import annotations

import pytest

from engine.__main__ import main


@pytest.mark.parametrize("arguments", [[], ["generate"], ["generate", "--prompt", "x", "--steps", "many"], ["paint"]])
def test_a_command_that_cannot_be_read_ends_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
