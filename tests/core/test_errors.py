from __future__ import annotations

from trilaw.core import errors


def test_every_error_is_in_the_tree_with_its_exit_status():
    statuses = {
        name: cls.exit_status
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, Exception)
    }
    assert statuses == {
        "TrilawError": 1, "RequestError": 2, "ConfigError": 2, "ModelError": 1, "SourceError": 1, "TaskError": 1, "LawError": 2, "RunError": 1, "Stopped": 130,
    }  # fmt: skip
    assert issubclass(errors.ConfigError, errors.RequestError)


def test_nearest():
    assert errors.nearest("gsm8", ["gsm8k", "math"]) == " (did you mean 'gsm8k'?)"
    assert errors.nearest("zzz", ["b", "a"]) == " (known: a, b)"
    assert errors.nearest("zzz", []) == ""
