"""The setup's own promises: locks, disk, paths, interpreters, the table of hosts. No server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from host import (
    cache,
    environment,
    launch,
    models,
    pythons,
    report,
    steps,
    tiny,
    tiny_loras,
    versions,
)
from host.steps import SetupError

ROOT = Path(__file__).resolve().parents[2]


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FLUX2_LORA_EDIT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache.cache_root() == tmp_path / "own"
    monkeypatch.delenv("FLUX2_LORA_EDIT_CACHE")
    assert cache.cache_root() == tmp_path / "shared" / "flux2-lora-edit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_root() == Path.home() / ".cache" / "flux2-lora-edit"


def test_a_second_run_waits_for_the_first(tmp_path, capsys):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from host.cache import exclusive\n"
        "with exclusive('venv', Path(sys.argv[2])):\n"
        "    print('held', flush=True); time.sleep(1); Path(sys.argv[2], 'done').touch()\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        with cache.exclusive("venv", tmp_path):
            assert (tmp_path / "done").exists(), "the lock was not waited for"
    assert "waiting" in capsys.readouterr().out


def test_a_full_disk_is_told_before_the_work(tmp_path):
    with pytest.raises(SetupError, match="needs about 1000000 GB of disk, and .* are free"):
        cache.require_space(tmp_path, 1e6, "The test")
    cache.require_space(tmp_path, 0.0, "The test")


def test_a_failing_step_shows_the_end_of_its_output(tmp_path):
    code = "print('x' * 9); print('Temporary failure in name resolution'); raise SystemExit(3)"
    with pytest.raises(steps.StepFailed, match="(?s)network.*status 3.*name resolution"):
        steps.run_logged([sys.executable, "-c", code], tmp_path / "logs" / "a.log")


def test_a_server_ends_with_whoever_started_it(tmp_path):
    script = tmp_path / "main.py"
    script.write_text("import sys, time\nprint(sys.argv, flush=True)\ntime.sleep(60)\n")
    guard = ROOT / "scripts" / "host" / "guarded_main.py"
    command = [sys.executable, str(guard), "main.py", "--port", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline().strip() == b"['main.py', '--port', '1']"
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_a_comfyui_path_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match="main.py"):
        environment.prepare()


@pytest.fixture
def somebodys_comfyui(monkeypatch, tmp_path):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    return tmp_path


def test_its_own_environment_is_preferred(monkeypatch, somebodys_comfyui):
    python = somebodys_comfyui / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    ran = []
    monkeypatch.setattr(environment, "_runs", lambda path, code: not ran.append(path))
    monkeypatch.setattr(environment, "_missing_packages", lambda path: [])
    # The link itself, not what it points to: a venv's python is a link.
    assert environment.prepare() == (python, somebodys_comfyui)


def test_a_named_python_must_have_torch(monkeypatch, somebodys_comfyui):
    monkeypatch.setenv("COMFYUI_PYTHON", "no-such-python")
    with pytest.raises(SetupError, match="COMFYUI_PYTHON.*\nno-such-python"):
        environment.prepare()


def test_no_python_with_torch(monkeypatch, somebodys_comfyui):
    monkeypatch.setattr(environment, "_runs", lambda path, code: False)
    with pytest.raises(SetupError, match="Name the right one in COMFYUI_PYTHON"):
        environment.prepare()


def test_the_table_of_hosts():
    assert [host.comfyui for host in versions.HOSTS] == sorted(
        (host.comfyui for host in versions.HOSTS), key=lambda text: [*map(int, text.split("."))]
    )
    assert all(re.fullmatch(r"[0-9a-f]{64}", host.sha256) for host in versions.HOSTS)
    required = re.search(r'requires-comfyui = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert versions.SUPPORTED[0] == required[1]
    with pytest.raises(ValueError, match=r"0\.30\.0"):
        versions.find("9.9.9")


def test_the_table_of_pythons():
    (least,) = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    numbers = [tuple(map(int, version.split("."))) for version in pythons.SUPPORTED]
    assert numbers == sorted(numbers)
    assert pythons.SUPPORTED[0] == least
    assert (launch.OLDEST, launch.NEWEST) == (numbers[0], numbers[-1])


def a_python(place: Path, says: str, status: int = 0) -> Path:
    """A command that answers every question with ``says``."""
    place.parent.mkdir(parents=True)
    place.write_text(f"#!/bin/sh\necho {says}\nexit {status}\n")
    place.chmod(0o755)
    return place


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")
def test_a_python_is_found_among_pyenvs(monkeypatch, tmp_path):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    a_python(tmp_path / "shims" / "python3.12", "pyenv: python3.12: command not found", 127)
    with pytest.raises(SetupError, match=r"no Python 3\.12"):
        pythons.find("3.12")
    for patch in (1, 9):
        a_python(tmp_path / f"versions/3.12.{patch}/bin/python", "3.12")
    newest = a_python(tmp_path / "versions/3.12.10/bin/python", "3.12")
    assert pythons.find("3.12") == newest
    a_python(tmp_path / "versions/3.12.11/bin/python", "3.13")
    assert pythons.find("3.12") == newest, "what it says counts, not the folder's name"


REPORT = """<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10">
<testcase name="a"><failure message="no"/></testcase>
<testcase name="b"><skipped message="no browser"/></testcase>
<testcase name="c"><skipped message="takes 40 s"/></testcase>
<testcase name="d"><skipped message="no browser"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_counted_and_tabled(tmp_path):
    file = tmp_path / "report.xml"
    assert report.read(file) == report.NOTHING
    file.write_text(REPORT)
    counts = report.read(file)
    assert counts[:3] == (4, 3, 3)
    assert counts.reasons == {"no browser": 2, "takes 40 s": 1}
    rows = [
        report.Row("0.20.1", "2.11.0", 1, counts, 12.6),
        report.Row("0.30.0", "2.11.0", 0, counts, 7.0),
        report.Row("9.9.9", "", "There is none.", report.NOTHING, 0.0),
    ]
    table = report.markdown("ComfyUI", rows).splitlines()
    assert table[0] == "| ComfyUI | torch | passed | failed | skipped | seconds |"
    assert table[2] == "| 0.20.1 | 2.11.0 | 4 | 3 | 3 | 13 |"
    assert "- 0.20.1: pytest status 1" in table and "- 9.9.9: There is none." in table
    assert "- no browser (0.20.1: 2, 0.30.0: 2)" in table
    plain = report.plain("ComfyUI", rows)
    assert "pytest status 1" in plain and "There is none." in plain and "takes 40 s" in plain


def test_every_test_requirement_is_pinned():
    pinned = re.findall(r"^([\w.-]+)==", environment.CONSTRAINTS.read_text(), re.MULTILINE)
    for file in environment.REQUIREMENTS:
        for line in file.read_text().splitlines():
            name = re.match(r"[\w.-]*", line)[0]
            if name:
                assert name.lower().replace("_", "-") in pinned, f"{name} has no exact version"


def test_tiny_weights_are_the_same_each_time_and_follow_the_seed():
    first, again = (tiny.transformer("klein-4b", 128, double=1, single=1) for _ in range(2))
    other = tiny.transformer("klein-4b", 128, double=1, single=1, seed=1)
    assert all(first[name].equal(again[name]) for name in first)
    image, text = (first[f"double_blocks.0.{stream}_attn.qkv.weight"] for stream in ("img", "txt"))
    assert not image.equal(text), "two weights of one shape must differ"
    assert not first["img_in.weight"].equal(other["img_in.weight"])
    deeper = tiny.transformer("dev", 128, double=2, single=1)
    assert all(first[name].equal(deeper[name]) for name in first), "a block moved the others"


@pytest.mark.parametrize(("variant", "hidden"), [("dev", 200), ("flux1", 256)])
def test_tiny_weights_that_cannot_be(variant, hidden):
    with pytest.raises(ValueError, match="200|flux1"):
        tiny.transformer(variant, hidden)


@pytest.mark.parametrize("lora", [tiny_loras.ai_toolkit, tiny_loras.kohya])
def test_tiny_loras_fit_the_tiny_model(lora):
    shapes = tiny.transformer_shapes("dev")
    modules = tiny_loras.block_modules(256, 2, 3)
    assert all(shapes[f"{name}.weight"] == shape for name, shape in modules.items())
    weights = lora().weights
    ups = [tensor for name, tensor in weights.items() if "lora_B" in name or "lora_up" in name]
    assert sorted(up.shape[0] for up in ups) == sorted(out for out, _ in modules.values())


def test_the_models_are_made_once(monkeypatch, tmp_path):
    made = []

    def files():
        made.append(1)
        return {"vae/small.safetensors": ({"a": tiny.Random(0, tiny.torch.float32).ones(2)}, {})}

    monkeypatch.setattr(models, "_files", files)
    first = models.tiny_dir(tmp_path)
    assert models.tiny_dir(tmp_path) == first
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == [first.name], "something was left over"
    base = models.make_base(tmp_path / "base", [first])
    assert (base / "models" / "vae" / "small.safetensors").is_file()
    assert sorted(path.name for path in (base / "input").iterdir()) == sorted(
        [*models.PHOTOS, "cat.png"]
    )
