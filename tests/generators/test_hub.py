"""Names and loading: what a generator's name leads to, and what happens between here and the Hub.

The Hub is a server on loopback (``hub_server.py``); huggingface-hub is the installed one, 1.x or 2.x.
"""

import copy
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from typer.testing import CliRunner

from semtransforms.cli import app
from semtransforms.core import hub
from semtransforms.core.config import GeneratorConfig
from semtransforms.generators import names
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.ntga import RecordedNoise
from semtransforms.protect.transform import SEMProtect
from semtransforms.protect.wrapper import ProtectedDataset

ROOT = Path(__file__).parents[2]
NAME = "org/stripes"
CONFIG = GeneratorConfig(
    surrogate="convnet", width=4, steps_u=1, num_samples=1, num_classes=3, image_size=(8, 8), precision="fp32"
)


def make(seed: int = 0) -> NoiseGenerator:
    """A network that was never fitted, large enough to be cut in the middle."""
    return NoiseGenerator(build_surrogate(GeneratorConfig.from_dict({**CONFIG.to_dict(), "seed": seed})), CONFIG)


def files_of(generator: NoiseGenerator, folder: Path) -> dict[str, bytes]:
    generator.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def commit(server: HubServer, tmp_path: Path) -> str:
    """The commit of the generator that lies on the server as org/stripes."""
    return server.add(NAME, files_of(make(), tmp_path / "made"))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


# --- names --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with one generator, em-shapes, and a working directory beside it."""
    make(1).save_pretrained(tmp_path / "bundle" / "em-shapes")
    monkeypatch.setattr(names, "_BUNDLED", (tmp_path / "bundle",))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "bundle" / "em-shapes"


def test_a_folder_goes_before_a_short_name(bundle: Path):
    """Whoever fitted 'em-shapes' for their own images would get noise that every reader of the Hub can wash out."""
    assert names.resolve("em-shapes") == bundle
    make(2).save_pretrained("em-shapes")
    assert names.resolve("em-shapes") == Path("em-shapes")
    assert NoiseGenerator.from_pretrained("em-shapes").fingerprint == make(2).fingerprint


def test_a_folder_without_a_generator_hides_no_short_name(bundle: Path):
    """A folder of results called after its generator must not break the command that made it."""
    Path("em-shapes").mkdir()
    (Path("em-shapes") / "report.html").write_text("")
    assert names.resolve("em-shapes") == bundle


@pytest.mark.parametrize("left", ["config.json", "model.safetensors"])
def test_half_a_generator_is_not_replaced_by_the_published_one(bundle: Path, left: str):
    """A damaged generator of one's own must be an error: the public one in its place protects from few."""
    Path("em-shapes").mkdir()
    shutil.copy(bundle / left, "em-shapes")
    with pytest.raises(FileNotFoundError, match="'em-shapes' has no"):
        names.resolve("em-shapes")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/em", "x" * 5000, "org/x@a/../../../b", "org/x@../y"])
def test_names_that_lead_nowhere(bundle: Path, server: HubServer, name: str):
    """An error of one line, and no file outside of the cache: a revision is a part of its paths."""
    with pytest.raises(ValueError, match=r"unknown generator|revision must be"):
        names.resolve(name)
    with pytest.raises(ValueError, match="revision must be"):
        names.resolve("org/x", revision="../y")
    assert server.requests == []


def test_an_existing_folder_is_never_looked_up_on_the_hub(bundle: Path, server: HubServer):
    """Anyone could register runs/em on the Hub and wait for those whose folder of that name is incomplete."""
    Path("runs/em").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"'runs/em' has no config\.json"):
        names.resolve("runs/em")
    assert server.requests == []


def test_short_name_on_the_hub(bundle: Path, server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch):
    """A line in the table is all it takes, and the commit in it fixes the bytes whatever the branch does later."""
    monkeypatch.setattr(
        names, "TABLE", {"stripes": names.OnHub(NAME, commit), "em-shapes": names.OnHub("org/x", commit)}
    )
    server.repositories[NAME].commit({"model.safetensors": b"another"})
    assert NoiseGenerator.from_pretrained("stripes").fingerprint == make().fingerprint
    assert names.resolve("em-shapes") == bundle  # what is installed needs no network


def test_stand_in_says_so_once(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    """README's first line works before its generator is fitted, and nobody takes the small one for it."""
    monkeypatch.setattr(names, "TABLE", {"em-large": names.StandIn("em-shapes"), "none": names.StandIn("not-there")})
    names._say_stand_in.cache_clear()
    with pytest.warns(UserWarning, match="'em-large' is not fitted yet: 'em-shapes' serves"):
        assert names.resolve("em-large") == bundle
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names.resolve("em-large") == bundle
    with pytest.raises(ValueError, match=r"unknown generator 'none'.*em-shapes.*it is not fitted yet"):
        names.resolve("none")


def test_the_table_is_honest():
    """A made-up commit fails on the user's machine; a branch would change what a name means."""
    for name, entry in names.TABLE.items():
        assert "/" not in name
        if isinstance(entry, names.OnHub):
            assert hub.COMMIT.fullmatch(entry.revision or "")
            assert name in names.shipped()  # its config, so that `semtransforms list` needs no network


def test_unknown_names_list_the_nearest(bundle: Path):
    """A typo must not cost a search through the docs, and what cannot be on the Hub is not asked for there."""
    for wrong in ("em-shape", "./em-shapes", "a/b/em-shapes", "../em-shapes", "org/em-shapes@"):
        with pytest.raises(ValueError, match=r"unknown generator .*did you mean 'em-shapes'.*Fit one"):
            names.resolve(wrong)


def test_a_revision_where_there_is_none(bundle: Path, server: HubServer, commit: str):
    """One of two contradicting revisions would be dropped in silence."""
    for name in ("em-shapes", str(bundle), f"{NAME}@main"):
        with pytest.raises(ValueError, match=r"revision='v1' is for a repository org/name"):
            names.resolve(name, revision="v1")


# --- loading ------------------------------------------------------------------------------------------------------


def test_load_by_name_branch_and_commit(server: HubServer, commit: str, tmp_path: Path):
    """org/name is its main branch; a branch and a commit are their own."""
    server.repositories[NAME].refs["v1"] = commit
    server.add(NAME, files_of(make(1), tmp_path / "newer"))
    first, newer = make().fingerprint, make(1).fingerprint
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == newer
    assert NoiseGenerator.from_pretrained(f"{NAME}@v1").fingerprint == first
    assert NoiseGenerator.from_pretrained(NAME, revision="v1").fingerprint == first
    assert NoiseGenerator.from_pretrained(f"{NAME}@{commit}").fingerprint == first
    assert NoiseGenerator.from_pretrained(f"{NAME}@{commit}").name == f"{NAME}@{commit}"


def test_config_and_weights_are_of_one_commit(server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch):
    """Two requests for 'main' with a push between them would join the config of one generator to another's weights."""
    download = hub.hf_hub_download

    def push_between(repo_id: str, name: str, **options: object) -> str:
        path = download(repo_id, name, **options)
        if name == "config.json":
            server.add(NAME, {"model.safetensors": b"of another commit"})
        return path

    monkeypatch.setattr(hub, "hf_hub_download", push_between)
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == make().fingerprint


def test_cached_commit_needs_no_request(server: HubServer, commit: str, stopped: None):
    """Each worker of each rank loads the generator again: the Hub limits requests, and clusters have no network."""
    with pytest.raises(OSError, match="cannot be reached"):
        names.resolve(f"{NAME}@{commit}")
    constants.HUGGINGFACE_CO_URL_TEMPLATE = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    names.resolve(f"{NAME}@{commit}")
    seen = len(server.requests)
    assert seen > 0
    assert NoiseGenerator.from_pretrained(f"{NAME}@{commit}").fingerprint == make().fingerprint
    assert len(server.requests) == seen


def test_uncached_and_unreachable_fails_at_once(stopped: None, no_waiting: list[float], tmp_path: Path):
    """huggingface-hub alone tries for 23 s, and then says to check the connection."""
    remedy = rf"hf download {NAME} --local-dir FOLDER.*HF_ENDPOINT"
    with pytest.raises(OSError, match=rf"{NAME}.*cannot be reached.*{remedy}"):
        NoiseGenerator.from_pretrained(NAME, cache_dir=tmp_path)
    assert sum(no_waiting) == 0


def test_a_network_that_swallows_packets_fails_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A firewall that drops what it does not like answers nothing at all, not even no; huggingface-hub waits 10 s."""
    assert hub.PATIENCE[0] <= 2
    monkeypatch.setattr(hub, "PATIENCE", (0.2, *hub.PATIENCE[1:]))
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(8):  # the queue of a server that never accepts: Linux drops what comes after
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            waiting.append(client)
        address = f"http://127.0.0.1:{full.getsockname()[1]}" + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        started = time.perf_counter()
        with pytest.raises(OSError, match="cannot be reached"):
            names.resolve(NAME, cache_dir=tmp_path)
        assert time.perf_counter() - started < 9  # of 0.2, so that a busy machine has time
        for client in waiting:
            client.close()


def test_cached_branch_serves_while_the_hub_is_away(server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch):
    """A Hub that is down must not stop a training whose generator lies on the disk."""
    folder = names.resolve(NAME)
    server.status = 503
    assert names.resolve(NAME) == folder
    assert names.resolve(NAME, local_files_only=True) == folder
    with pytest.raises(OSError, match=r"org/other.*503"):
        names.resolve("org/other")
    with pytest.raises(OSError, match=r"org/other.*not in the cache.*hf download"):
        names.resolve("org/other", local_files_only=True)


def test_what_is_not_there(server: HubServer, commit: str, login: str):
    """Three mistakes of a user with three remedies; none is a stack of calls from a library they do not know."""
    with pytest.raises(ValueError, match=r"unknown generator 'org/stripe'.*no such repository at http://127.*private"):
        names.resolve("org/stripe")
    with pytest.raises(ValueError, match=r"'org/stripes@v9': no such branch, tag or commit"):
        names.resolve(f"{NAME}@v9")
    server.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04K\x01."})
    with pytest.raises(FileNotFoundError, match=r"'org/pickled' has no .*pickled weights are never loaded"):
        NoiseGenerator.from_pretrained("org/pickled")
    assert not any(request.path.endswith(".bin") for request in server.requests)


def test_weights_must_fit_to_the_last_tensor(server: HubServer, tmp_path: Path):
    """Loaded with strict=False, it would leave what is missing as initialised: noise of a half-random network."""
    from safetensors.torch import load_file, save

    files = files_of(make(), tmp_path / "made")
    weights = load_file(tmp_path / "made" / "model.safetensors")
    weights.popitem()
    server.add(NAME, {**files, "model.safetensors": save(weights)})
    with pytest.raises(ValueError, match="does not fit the network of its config"):
        NoiseGenerator.from_pretrained(NAME)


def test_damaged_on_the_way(server: HubServer, commit: str):
    """A mirror or a proxy that changes a byte changes the noise: the length is right, safetensors sees nothing."""
    server.send = lambda content: (content[:-1] + bytes([content[-1] ^ 1]), len(content))
    with pytest.raises(ValueError, match=r"is not what was saved.*Delete .*blobs") as caught:
        NoiseGenerator.from_pretrained(NAME)
    server.send = lambda content: (content, len(content))
    with pytest.raises(ValueError, match="damaged"):  # the cache knows no better
        NoiseGenerator.from_pretrained(NAME)
    Path(str(caught.value).partition("Delete ")[2].partition(" and ")[0]).unlink()
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == make().fingerprint


@pytest.mark.parametrize(("field", "value"), [("rho_u", 9 / 255), ("steps_u", 2), ("defense_sees", None)])
def test_damaged_config(tmp_path: Path, field: str, value: object):
    """A radius that one wrong digit has changed is a promise broken in every byte."""
    config = make().save_pretrained(tmp_path) / "config.json"
    record = json.loads(config.read_text())
    record["card"]["data"] = "what is for readers may be changed by hand"
    config.write_text(json.dumps(record))
    assert NoiseGenerator.from_pretrained(tmp_path, device="cpu").fingerprint == make().fingerprint
    record["config"][field] = value
    config.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is not what was saved"):
        NoiseGenerator.from_pretrained(tmp_path)


def test_another_length_than_announced(server: HubServer, commit: str):
    """A storage that serves a truncated file as if it were whole."""
    server.send = lambda content: (content[:-100], len(content))
    with pytest.raises(OSError, match=r"org/stripes.*size"):
        names.resolve(NAME)
    server.send = lambda content: (content, len(content))
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == make().fingerprint


def test_truncated_at_its_source(server: HubServer, tmp_path: Path):
    """Every checksum agrees, and yet it is no generator."""
    files = files_of(make(), tmp_path / "made")
    server.add(NAME, {**files, "model.safetensors": files["model.safetensors"][:-100]})
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or no safetensors file"):
        NoiseGenerator.from_pretrained(NAME)


def test_a_line_that_breaks_once_costs_nothing(server: HubServer, commit: str, no_waiting: list[float]):
    """The rest is asked for, not the whole again."""
    calls = []

    def once(content: bytes) -> tuple[bytes, int]:
        calls.append(1)
        return content, 5_000 if len(calls) == 1 else len(content)

    server.send = once
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == make().fingerprint
    assert len(calls) == 2


def test_interrupted_download_recovers(server: HubServer, commit: str, no_waiting: list[float]):
    """Half a file in the cache must not be taken for the whole one by the next call."""
    server.send = lambda content: (content, 5_000)
    with pytest.raises(OSError, match=r"org/stripes.*broke off.*Try again"):
        names.resolve(NAME)
    with pytest.raises(OSError, match=r"org/stripes.*not in the cache"):
        names.resolve(NAME, local_files_only=True)
    server.send = lambda content: (content, len(content))
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == make().fingerprint


def test_interrupted_update_leaves_the_older_one(
    server: HubServer, commit: str, no_waiting: list[float], tmp_path: Path
):
    """Whole on the disk, it must serve where the newer one broke off, and where there is no network then."""
    names.resolve(NAME)
    server.add(NAME, files_of(make(1), tmp_path / "newer"))
    server.send = lambda content: (content, len(content) // 2)
    with pytest.raises(OSError, match="Try again"):
        names.resolve(NAME)
    assert names.resolve(NAME, local_files_only=True).name == commit
    server.status = 503
    assert NoiseGenerator.from_pretrained(NAME).fingerprint == make().fingerprint


def test_a_password_in_the_mirrors_address_is_not_told(
    server: HubServer, commit: str, stopped: None, monkeypatch: pytest.MonkeyPatch
):
    """Messages end up in bug reports."""
    monkeypatch.setattr(constants, "ENDPOINT", constants.ENDPOINT.replace("//", "//bob:s3cret@"))
    for action in (lambda: names.resolve(NAME), lambda: make().push_to_hub("me/mine")):
        with pytest.raises((OSError, ValueError)) as error:
            action()
        assert "s3cret" not in str(error.value)


def test_gated(server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch):
    """The remedy is a click on a page, not a retry; with and without a token."""
    server.repositories[NAME].gated = True
    for _ in range(2):
        with pytest.raises(PermissionError, match=rf"gated\. Ask for access at {server.endpoint}/{NAME}\. Log in"):
            names.resolve(NAME)
        monkeypatch.setenv("HF_TOKEN", HubServer.token)


def test_private_needs_a_token_and_never_tells_it(server: HubServer, commit: str, tmp_path: Path, caplog, capfd):
    """From the usual places, to the Hub alone; in no message, no log, no file of ours."""
    server.repositories[NAME].private = True
    with pytest.raises(ValueError, match=r"no such repository.*that you may read.*private.*hf auth login"):
        names.resolve(NAME)
    assert NoiseGenerator.from_pretrained(NAME, token=server.token).fingerprint == make().fingerprint
    assert {request.token for request in server.requests if "/resolve/" in request.path} == {None, server.token}
    assert {request.token for request in server.requests if request.host == "localhost"} == {None}  # the storage

    (tmp_path / "token").write_text(server.token)  # what `hf auth login` writes
    generator = NoiseGenerator.from_pretrained(NAME, cache_dir=tmp_path / "second")
    (tmp_path / "token").unlink()
    wrong = "hf_anotherSecretToken"
    with pytest.raises(OSError, match=r"answered 401.*hf auth login") as caught:
        names.resolve(NAME, token=wrong, cache_dir=tmp_path / "third")
    generator.save_pretrained(tmp_path / "saved")
    told = [str(caught.value), repr(generator), caplog.text, *capfd.readouterr()]
    kept = [pickle.dumps(generator), *(path.read_bytes() for path in (tmp_path / "saved").iterdir())]
    told += [content.decode("latin") for content in kept]
    assert not any(secret in text for text in told for secret in (wrong, server.token))


@pytest.mark.processes
def test_environment_of_the_process(server: HubServer, commit: str, tmp_path: Path):
    """HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE as people set them, before anything is imported."""
    server.repositories[NAME].private = True
    code = (
        "import sys, time, semtransforms; semtransforms.NoiseGenerator\n"
        "waits = []; time.sleep = waits.append\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(semtransforms.NoiseGenerator.from_pretrained(name, device='cpu').fingerprint)\n"
        "    except OSError as error: print(type(error).__name__, error)\n"
        "print(sum(waits))"
    )

    def load(*names: str, **variables: str) -> list[str]:
        environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": server.endpoint,
                       "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", **variables}  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert HubServer.token not in done.stdout + done.stderr
        return done.stdout.splitlines()

    assert load(NAME, HF_TOKEN=server.token)[0] == make().fingerprint
    seen = len(server.requests)
    assert seen > 0
    found, pinned, error, waited = load(NAME, f"{NAME}@{commit}", "org/other", HF_HUB_OFFLINE="1")
    assert found == pinned == make().fingerprint
    assert "HF_HUB_OFFLINE is set" in error
    assert float(waited) == 0
    assert len(server.requests) == seen


def test_pickled_transform_finds_the_files_again(server: HubServer, commit: str, tmp_path: Path, stopped: None):
    """A spawned worker has neither the token nor the cache_dir of its parent, and need not ask the Hub."""
    constants.HUGGINGFACE_CO_URL_TEMPLATE = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    generator = NoiseGenerator.from_pretrained(NAME, cache_dir=tmp_path / "elsewhere", device="cpu")
    seen = len(server.requests)
    parcel = pickle.dumps(SEMProtect(generator))
    protect = pickle.loads(parcel)
    assert (protect.generator.name, protect.generator.fingerprint) == (NAME, generator.fingerprint)
    assert len(server.requests) == seen
    shutil.rmtree(tmp_path / "elsewhere")  # on another machine it goes by name
    assert pickle.loads(parcel).generator.fingerprint == generator.fingerprint
    assert copy.deepcopy(generator).fingerprint == generator.fingerprint


def test_every_way_of_use_takes_a_name_on_the_hub(server: HubServer, commit: str, tmp_path: Path):
    """A name that works in one place and not in the next makes people write loaders of their own."""
    from semtransforms import evaluate

    name, images, labels = f"{NAME}@{commit}", torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.arange(6) % 3
    images += torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1) * 40
    expected = make().noise(images, labels, seed=1)
    protected = ProtectedDataset(
        torch.utils.data.TensorDataset(images, labels), name, seed=1, cache_dir=tmp_path / "stores", progress=False
    )
    assert torch.equal(protected.noise(5), expected[5])
    assert torch.equal(SEMProtect.from_pretrained(name, seed=1)(images, labels)[0], images + expected)
    report = evaluate((images, labels), name, test=(255 - images, labels), network="convnet", width=4, seeds=(0,))
    assert report.records[0].copy
    with pytest.raises(ValueError, match=r"'org/stripes@v9': no such branch"):
        evaluate((images, labels), f"{NAME}@v9", test=(images, labels))


# --- publishing ---------------------------------------------------------------------------------------------------


def test_push_and_load(server: HubServer, login: str, tmp_path: Path):
    """One call publishes; what comes back is the same generator, label names and card included."""
    generator = make()
    generator.classes, generator.card = ("a", "b", "c"), {"data": "stripes"}
    address = generator.push_to_hub("me/mine")
    commit = server.repositories["me/mine"].refs["main"]
    assert commit in address
    files = server.repositories["me/mine"].commits[commit]
    assert files == files_of(generator, tmp_path / "saved")
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    loaded = NoiseGenerator.from_pretrained("me/mine")
    assert (loaded.fingerprint, loaded.classes) == (generator.fingerprint, generator.classes)
    assert loaded.card == generator.card
    assert not server.repositories["me/mine"].private
    generator.push_to_hub("me/secret", private=True)
    assert server.repositories["me/secret"].private
    generator.save_pretrained(tmp_path / "also", repo_id="me/also", push_to_hub=True)  # in one call
    assert server.repositories["me/also"].commits[server.repositories["me/also"].refs["main"]] == files
    generator.push_to_hub("me/secret", private=True)  # again, and on a branch of its own
    server.repositories["me/secret"].refs["v2"] = "0" * 40
    generator.push_to_hub("me/secret", branch="v2")
    assert server.repositories["me/secret"].refs["v2"] != "0" * 40
    assert {request.token for request in server.requests if request.host == "localhost"} == {None}


def test_options_of_a_push(server: HubServer, login: str, monkeypatch: pytest.MonkeyPatch):
    """A misspelt branch option that is dropped publishes on main what was to be looked at first."""
    with pytest.raises(TypeError, match="brunch"):
        make().push_to_hub("me/mine", brunch="v2")
    assert server.repositories == {}
    sent = {}
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, **options: sent.update(options) or "address")
    options = {"commit_message": "First", "create_pr": True, "ignore_patterns": "*.md"}
    assert make().push_to_hub("me/mine", branch="v2", **options) == "address"
    assert (sent["repo_id"], sent["revision"]) == ("me/mine", "v2")
    assert {name: sent[name] for name in options} == options


def test_private_push_to_a_public_repository_is_refused(server: HubServer, commit: str, login: str):
    """create_repo(private=True, exist_ok=True) leaves a public repository public, and the push would be read by all."""
    with pytest.raises(ValueError, match=r"private: 'org/stripes' is there and public"):
        make(1).push_to_hub(NAME, private=True)
    assert server.repositories[NAME].refs["main"] == commit


def test_private_push_to_a_gated_repository_is_refused(server: HubServer, commit: str, login: str):
    """Gated is not private: whoever asks may be let in."""
    server.repositories[NAME].gated = True
    with pytest.raises((ValueError, PermissionError)):
        make(1).push_to_hub(NAME, private=True)
    assert server.repositories[NAME].refs["main"] == commit


def test_what_cannot_be_written_is_not_pushed(server: HubServer, login: str):
    """An empty repository would be left behind, under a name that others then see."""
    generator = make()
    generator.surrogate.double()
    with pytest.raises(ValueError, match=r"is torch\.float64"):
        generator.push_to_hub("me/mine")
    assert server.repositories == {}


def test_errors_of_a_push_speak_of_pushing(login: str, stopped: None):
    """'Not in the cache, download it by hand' sends its author to look for what they have."""
    with pytest.raises(OSError, match="is not published") as error:
        make().push_to_hub("me/mine")
    assert "hf download" not in str(error.value)


def test_a_generator_that_is_the_noise_is_not_made_public(server: HubServer, login: str):
    """NTGA's holds the noise of the fitted images: its readers subtract it."""
    config = GeneratorConfig(method="ntga", surrogate="ntk-fnn", num_classes=2, image_size=(8, 8))
    generator = NoiseGenerator(RecordedNoise(2, (8, 8)), config)
    with pytest.raises(ValueError, match=r"'ntga' is the noise itself.*private=True \(--private"):
        generator.push_to_hub("me/ntga")
    assert server.requests == []
    generator.push_to_hub("me/ntga", private=True)
    pushed = server.repositories["me/ntga"]
    assert b"keeps the noise of certain images" in pushed.commits[pushed.refs["main"]]["README.md"]


def test_push_without_a_login(server: HubServer):
    """'401 Client Error' names no remedy."""
    with pytest.raises((ValueError, OSError), match=r"me/mine.*hf auth login"):
        make().push_to_hub("me/mine")
    assert server.repositories == {}


def test_push_that_breaks_off(server: HubServer, login: str, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch):
    """The command line shows one line, and nothing was committed: nobody loads half a generator."""
    import hub_server

    routes = {pattern: answer for pattern, answer in hub_server.ROUTES.items() if "PUT" not in pattern}
    monkeypatch.setattr(hub_server, "ROUTES", routes)
    with pytest.raises(OSError, match=r"me/mine.*Try again"):
        make().push_to_hub("me/mine")
    assert list(server.repositories["me/mine"].commits.values()) == [{}]


def test_push_on_the_command_line(server: HubServer, login: str, tmp_path: Path):
    """`semtransforms fit`, then `semtransforms push`."""
    folder = make().save_pretrained(tmp_path / "mine")
    result = CliRunner().invoke(app, ["push", str(folder), "me/mine", "--private"])
    assert result.exit_code == 0, result.output
    assert f"{server.endpoint}/me/mine/commit/" in result.stdout
    assert server.repositories["me/mine"].private
    result = CliRunner().invoke(app, ["push", str(folder), "mine"])
    assert result.exit_code == 2
    assert "repo_id must be org/name" in result.stderr


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("olah-cli") is None, reason="needs the mirror server olah (pip install olah)")
def test_load_through_a_mirror(server: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Many users reach the Hub through olah: it asks other endpoints, and has ETags of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mirror = f"127.0.0.1:{port}"
    options = {"host": "127.0.0.1", "port": port, "hf-scheme": "http", "hf-netloc": f"127.0.0.1:{server.port}",
               "hf-lfs-netloc": f"localhost:{server.port}", "mirror-scheme": "http", "mirror-netloc": mirror,
               "mirror-lfs-netloc": mirror, "repos-path": tmp_path / "repos", "log-path": tmp_path / "log"}  # fmt: skip
    command = ["olah-cli", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "olah.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        while running.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://{mirror}")
        address = f"http://{mirror}" + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        for name in (NAME, f"{NAME}@{commit}"):
            loaded = NoiseGenerator.from_pretrained(name, cache_dir=tmp_path / name.partition("@")[2])
            assert loaded.fingerprint == make().fingerprint
        with pytest.raises(ValueError, match=r"'org/other': no such folder here, and no such repository"):
            names.resolve("org/other")
    finally:
        running.terminate()
        running.wait()
    assert any("paths-info" in request.path for request in server.requests)  # olah's way, not ours


def test_config_holds_every_field(tmp_path: Path):
    """What is not in config.json is lost on the way: the noise, the label names, or who may be asked about it."""
    import semtransforms

    generator = make()
    generator.classes, generator.card = ("a", "b", "c"), {"data": "stripes"}
    record = json.loads((generator.save_pretrained(tmp_path) / "config.json").read_text())
    left_out = {"classwise", "hold_steps", "one_pass", "pretrained"}  # where they are not used
    assert {*record["config"]} | left_out == set(GeneratorConfig.__dataclass_fields__)
    assert record["semtransforms"] == semtransforms.__version__
    assert (record["classes"], record["card"]) == (["a", "b", "c"], {"data": "stripes"})
    assert record["config"]["image_size"] == [8, 8]
