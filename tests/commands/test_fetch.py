"""Golden files that lie elsewhere: fetched once, held against a digest, and used as if they were here."""

import gzip
import hashlib
import http.server
import threading
from functools import partial

import pytest

pytest.importorskip("fsspec")
import fsspec

from tests.commandline import runner
from tests.fakes import write_checkpoint, write_golden

pytest_plugins = ["pytester"]


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """Run `goldens` in an empty project, with a cache of its own."""
    monkeypatch.setenv("GOLDENS_CACHE", str(tmp_path / "cache"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    write_golden(folder / "tiny.h5", ("float32",), ("hello",), write_checkpoint(folder / "checkpoint"))
    return (folder / "tiny.h5").read_bytes()


@pytest.fixture
def put():
    """Put bytes at a URL in memory; `put.away(url)` takes them away."""
    there = fsspec.filesystem("memory")

    def put(url, content):
        there.pipe(url, content)
        return url

    put.away = lambda url: there.rm(url)
    yield put
    there.store.clear()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def cached(tmp_path):
    """What is in the cache, temporary files too."""
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_url_with_its_digest_is_a_golden_file(goldens, golden, put, tmp_path):
    url = put("memory://far/tiny.h5", golden)
    told = goldens("verify", f"{url}#sha256={digest(golden)}")
    assert told.status == 0, told.err
    assert told.out == f"{tmp_path}/cache/{digest(golden)}/tiny.h5: holds\n"
    assert told.err == "fetching memory://far/tiny.h5\n"
    put.away(url)
    again = goldens("show", f"{url}#sha256={digest(golden)}")
    assert (again.status, again.err) == (0, "")


@pytest.mark.parametrize(
    ("suffix", "says"),
    [
        (
            "",
            "has no digest, and what is fetched is held against one: write URL#sha256=DIGEST, or pin it with",
        ),
        ("#sha256=12ab", "has the digest '12ab', which is no SHA-256"),
    ],
)
def test_nothing_is_fetched_without_a_digest(goldens, golden, put, tmp_path, suffix, says):
    told = goldens("verify", put("memory://far/tiny.h5", golden) + suffix)
    assert (told.status, told.out) == (2, "")
    assert says in told.err
    assert cached(tmp_path) == []


def test_another_file_is_refused(goldens, golden, put, tmp_path):
    url = put("memory://far/tiny.h5", golden[:-1] + b"x")
    told = goldens("verify", f"{url}#sha256={digest(golden)}")
    assert told.status == 2
    assert "is not the file that was pinned: its SHA-256 is" in told.err
    assert cached(tmp_path) == []


def test_a_download_that_breaks_off_leaves_nothing(goldens, golden, put, tmp_path, monkeypatch):
    url = put("memory://far/tiny.h5", golden)
    there = fsspec.filesystem("memory").store["/far/tiny.h5"]
    reads = iter([golden[:1000]])

    def broken(size=-1):
        for block in reads:
            return block
        raise ConnectionResetError("the line is dead")

    monkeypatch.setattr(there, "read", broken, raising=False)
    told = goldens("verify", f"{url}#sha256={digest(golden)}")
    assert told.status == 2
    assert "goldens: cannot fetch memory://far/tiny.h5: the line is dead\n" in told.err
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory://far/none.h5", "there is nothing at memory://far/none.h5"),
        (
            "nowhere://me:secret@far/a.h5?token=secret",
            "cannot fetch nowhere://far/a.h5: Protocol not known: nowhere",
        ),
    ],
)
def test_what_is_not_there_is_said_without_passwords(goldens, url, says):
    told = goldens("verify", f"{url}#sha256={'0' * 64}")
    assert told.status == 2
    assert says in told.err
    assert "secret" not in told.err


def test_a_packed_file_is_unpacked(goldens, golden, tmp_path):
    packed = tmp_path / "tiny.h5.gz"
    packed.write_bytes(gzip.compress(golden))
    told = goldens("verify", f"{packed.as_uri()}#sha256={digest(golden)}")
    assert told.status == 0, told.err
    assert told.out == f"{tmp_path}/cache/{digest(golden)}/tiny.h5: holds\n"


def test_a_pinned_name_stands_for_the_file(goldens, golden, put, tmp_path):
    (tmp_path / "project" / "goldens").mkdir()
    url = put("memory://far/tiny.h5", golden)
    told = goldens("fetch", url, "--pin", "goldens/small.h5")
    assert told.out == f"goldens/small.h5: {url} sha256 {digest(golden)}\n"
    pins = (tmp_path / "project" / "goldens" / "remote.toml").read_text()
    assert pins == f'[[golden]]\nname = "small.h5"\nurl = "{url}"\nsha256 = "{digest(golden)}"\n'
    put.away(url)
    assert goldens("verify", "goldens/small.h5").out == "goldens/small.h5: holds\n"
    assert goldens("show", "goldens/small.h5").status == 0
    write_checkpoint(tmp_path / "project" / "goldens" / "checkpoint")
    told = goldens("replay", "goldens/small.h5", "--port", "tests.fakes:make", "--include", "lm_head")
    assert told.status == 0, told.err
    assert goldens("fetch", "goldens/small.h5").out == f"{tmp_path}/cache/{digest(golden)}/tiny.h5\n"


def test_a_damaged_copy_is_refused_and_fetched_again(goldens, golden, put, tmp_path):
    url = put("memory://far/tiny.h5", golden)
    named = f"{url}#sha256={digest(golden)}"
    assert goldens("fetch", named).status == 0
    (copy,) = cached(tmp_path)
    copy.write_bytes(golden[:2000] + bytes(255 - byte for byte in golden[2000:4000]) + golden[4000:])
    assert goldens("verify", named).status != 0
    assert goldens("fetch", named).status == 0
    assert copy.read_bytes() == golden


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.h5"], "nothing says where a.h5 is: pin it with `goldens fetch URL --pin a.h5`, or give a URL"),
        (["a.h5", "--pin", "b.h5"], "--pin names one file: give it one URL, without a digest"),
        (["memory://far/other", "--pin", "b.h5"], "is not a golden file"),
        (["memory://far/tiny.h5", "--pin", "taken.h5"], "remote.toml pins taken.h5 already, as memory://old"),
        (["memory://far/tiny.h5", "--pin", "here.h5"], "here.h5 is a file of its own"),
    ],
)
def test_what_cannot_be_fetched_or_pinned(goldens, golden, put, tmp_path, arguments, says):
    put("memory://far/tiny.h5", golden)
    put("memory://far/other", b"something else")
    pins = f'# ours\n[[golden]]\nname = "taken.h5"\nurl = "memory://old"\nsha256 = "{"0" * 64}"\n'
    (tmp_path / "project" / "remote.toml").write_text(pins)
    (tmp_path / "project" / "here.h5").write_bytes(golden)
    told = goldens("fetch", *arguments)
    assert told.status == 2
    assert says in told.err
    assert (tmp_path / "project" / "remote.toml").read_text() == pins


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('sha256 = "12"', "remote.toml: golden[0].sha256 (a.h5): expected `str` matching"),
        ('sha = "12"', "remote.toml: golden[0] (a.h5): object contains unknown field `sha`; nearest: sha256"),
        ("sha256 = [", "remote.toml is not TOML"),
    ],
)
def test_a_damaged_list_of_pins_is_one_sentence(goldens, tmp_path, entry, says):
    pins = f'[[golden]]\nname = "a.h5"\nurl = "memory://a"\n{entry}\n'
    (tmp_path / "project" / "remote.toml").write_text(pins)
    told = goldens("verify", "a.h5")
    assert told.status == 2
    assert told.err.startswith(f"goldens: {says}")


@pytest.fixture
def server(tmp_path):
    """A folder that is served by HTTP, and its URL."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/half.h5":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"x" * 1000)
            else:
                super().do_GET()

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()
    thread.join()


def test_by_http(goldens, golden, server, tmp_path):
    folder, url = server
    (folder / "tiny.h5").write_bytes(golden)
    told = goldens("verify", f"{url}/tiny.h5?download=1#sha256={digest(golden)}")
    assert told.status == 0, told.err
    assert told.out.endswith("/tiny.h5: holds\n")
    (folder / "tiny.h5").unlink()
    assert goldens("verify", f"{url}/tiny.h5#sha256={digest(golden)}").status == 0
    assert "there is nothing at" in goldens("verify", f"{url}/none.h5#sha256={'0' * 64}").err


def test_by_http_half_a_file_is_none(goldens, server, tmp_path):
    folder, url = server
    (folder / "half.h5").write_bytes(b"x" * 100_000)
    told = goldens("verify", f"{url}/half.h5#sha256={'0' * 64}")
    assert told.status == 2
    assert f"cannot fetch {url}/half.h5: " in told.err
    assert cached(tmp_path) == []


def test_a_marker_names_a_pinned_file(pytester, golden, put, monkeypatch, tmp_path):
    monkeypatch.setenv("GOLDENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p harness.plugin")
    url = put("memory://far/other-name.h5", golden)
    (pytester.path / "remote.toml").write_text(
        f'[[golden]]\nname = "tiny.h5"\nurl = "{url}"\nsha256 = "{digest(golden)}"\n'
    )
    write_checkpoint(pytester.path / "checkpoint")
    pytester.makeini("[pytest]\ngoldens_port = tests.fakes:make\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.goldens("tiny.h5", include="lm_head", modes="isolated")
        def test_component(goldens, port):
            goldens.check(port)
        """
    )
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
