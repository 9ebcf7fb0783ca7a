from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from trilaw.core import rundir
from trilaw.core.errors import RequestError, RunError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_text_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    rundir.write_text(path, "one")
    rundir.write_text(path, "two é")
    assert path.read_text(encoding="utf-8") == "two é"
    assert names(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    rundir.write_text(path, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        rundir.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_writing_below_a_file_is_a_sentence(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        rundir.write_text(tmp_path / "f" / "a.txt", "x")
    with pytest.raises(RunError, match="cannot be written"), rundir.new_folder(tmp_path / "f" / "x"):
        pass
    with pytest.raises(RunError, match="cannot be written"), rundir.lock(tmp_path / "f"):
        pass


def test_read_json(tmp_path):
    rundir.write_json(tmp_path / "a.json", {"a": [1]})
    assert rundir.read_json(tmp_path / "a.json") == {"a": [1]}
    (tmp_path / "b.json").write_text("{")
    for name in ("b.json", "missing.json"):
        with pytest.raises(RunError, match=name):
            rundir.read_json(tmp_path / name)


def test_new_folder_appears_whole_and_replaces(tmp_path):
    target = tmp_path / "model"
    for content in ("one", "two"):
        with rundir.new_folder(target) as folder:
            assert folder != target
            (folder / "sub").mkdir()
            (folder / "sub" / "w").write_text(content)
            assert content == "two" or not target.exists()
        assert (target / "sub" / "w").read_text() == content
    assert names(tmp_path) == ["model"]


def test_an_error_inside_new_folder_keeps_the_old_one_and_its_kind(tmp_path):
    target = tmp_path / "model"
    with rundir.new_folder(target) as folder:
        (folder / "w").write_text("old")

    def broken():
        with rundir.new_folder(target) as folder:
            (folder / "w").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert (target / "w").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_sweep(tmp_path):
    (tmp_path / "a" / ".tmp-1-x" / "y").mkdir(parents=True)
    (tmp_path / "a" / ".tmp-2-file").write_text("")
    (tmp_path / "a" / "kept").write_text("")
    rundir.sweep(tmp_path)
    assert names(tmp_path / "a") == ["kept"]


def _try_lock(folder, queue):
    try:
        with rundir.lock(folder):
            queue.put("held")
    except RunError as error:
        queue.put(str(error))


def _lock_elsewhere(folder) -> str:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_try_lock, args=(folder, queue))
    process.start()
    answer = queue.get(timeout=60)
    process.join()
    return answer


def test_the_lock_keeps_others_out_until_it_ends(tmp_path):
    with rundir.lock(tmp_path / "run"):
        assert "Another process" in _lock_elsewhere(tmp_path / "run")
    assert _lock_elsewhere(tmp_path / "run") == "held"


def run_folder(tmp_path, done):
    folder = tmp_path / "run"
    rundir.write_json(folder / "resolved.json", {"stages": [{"name": n} for n in ("base", "zero", "exam")]})
    for name, model in done.items():
        rundir.write_json(folder / "stages" / name / "done.json", {"kind": "x", "model": model})
    return folder


def test_stage_model(tmp_path):
    folder = run_folder(tmp_path, {"zero": "model", "base": "model", "exam": None})
    assert rundir.is_run(folder)
    assert not rundir.is_run(tmp_path)
    assert list(rundir.stages_done(folder)) == ["base", "zero", "exam"]
    with pytest.raises(RunError, match=r"zero/model.*is gone: restore it, or delete done\.json"):
        rundir.stage_model(folder)
    for name in ("zero", "base"):
        (folder / "stages" / name / "model").mkdir()
    assert rundir.stage_model(folder) == folder / "stages" / "zero" / "model"
    assert rundir.stage_model(folder, "base") == folder / "stages" / "base" / "model"
    with pytest.raises(RequestError, match="did you mean 'zero'"):
        rundir.stage_model(folder, "zeor")
    rundir.kept_model(folder / "stages" / "zero", 20).mkdir(parents=True)
    assert rundir.stage_model(folder, "zero@20") == folder / "stages" / "zero" / "kept" / "step-20"
    with pytest.raises(RequestError, match=r"kept no model 'zero@2' \(did you mean 'zero@20'\?\)"):
        rundir.stage_model(folder, "zero@2")
    with pytest.raises(RequestError, match="no model of a stage 'exam'"):
        rundir.stage_model(folder, "exam")


def test_a_run_without_models_is_a_sentence(tmp_path):
    with pytest.raises(RequestError, match="no finished model"):
        rundir.stage_model(run_folder(tmp_path, {}))


@pytest.mark.parametrize("text", ["[]", "{", '{"model": 3}', "[" * 100_000])
def test_a_broken_done_file_is_named_with_its_cure(tmp_path, text):
    folder = run_folder(tmp_path, {"zero": "model"})
    (folder / "stages" / "zero" / "done.json").write_text(text)
    with pytest.raises(RunError, match=r"zero/done\.json is broken: delete it"):
        rundir.stages_done(folder)


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"stages": [{}]}', '{"stages": [3]}'])
def test_a_broken_resolved_recipe_is_named(tmp_path, text):
    (tmp_path / "resolved.json").write_text(text)
    with pytest.raises(RunError, match=r"resolved\.json is broken"):
        rundir.stage_model(tmp_path)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "the disk is full .*free space and give the same command"),
        (errno.EROFS, "make it writable, or choose another place"),
        (errno.ENOTDIR, "a file is in the way"),
        (errno.EIO, "what was saved is intact"),
    ],
)
def test_what_the_system_says_comes_with_what_to_do(code, cure):
    with pytest.raises(RunError, match=f"^place cannot be written.*{cure}"), rundir.complaining("place"):
        raise OSError(code, "reason")


def test_a_name_that_no_file_system_takes_is_no_run():
    assert not rundir.is_run(Path("a" * 5000))


def test_write_json_is_stable(tmp_path):
    rundir.write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1, "a": 2}


def test_bytes_are_written_like_text_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    rundir.write_bytes(path, b"\x00old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(RunError, match="the disk is full"):
        rundir.write_bytes(path, b"new")
    assert path.read_bytes() == b"\x00old"
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\0b", "", "x" * 65, "A", 3, None])
def test_a_stage_by_a_name_that_no_recipe_allows_is_broken(tmp_path, name):
    rundir.write_json(tmp_path / "resolved.json", {"stages": [{"name": name}]})
    with pytest.raises(RunError, match="lists no named stages"):
        rundir.read_resolved(tmp_path)


def test_a_run_of_another_version_is_named(tmp_path):
    for version in (2, "1", 10**400, None):
        rundir.write_json(tmp_path / "resolved.json", {"version": version, "stages": [{"name": "a"}]})
        with pytest.raises(RunError, match="is no file of version 1"):
            rundir.read_resolved(tmp_path)
