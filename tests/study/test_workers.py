"""Workers of a cluster: the numbers of one process, and none that would give others."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest

from alignlab import cache
from alignlab.errors import AlignlabError
from alignlab.store import STORE
from alignlab.study import arms, workers
from alignlab.study.arms import run_arms
from alignlab.study.workers import ADDRESS, engaged

distributed = pytest.importorskip("distributed", reason="needs alignlab[dask]")

# An arm that trains, with initial weights and an order of rows from its seed. "slow"
# ones say that they have begun, so that their process can be killed.
MODULE = """
    import os
    import time
    from pathlib import Path

    import torch

    from alignlab import cache
    from alignlab.seeds import torch_seed


    def shared(folder):
        (folder / "text").write_text("built")


    def train(*, seed, slow=False):
        marks = os.environ.get("MARKS")
        cache.artifact("shared", shared, key={})
        if slow and marks:
            Path(marks, f"begun-{os.getpid()}").touch()
            end = time.monotonic() + 60
            while not Path(marks, "killed").exists() and time.monotonic() < end:
                time.sleep(0.05)
        torch.manual_seed(torch_seed(seed, "a small network"))
        model = torch.nn.Sequential(
            torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(50):
            rows = torch.randn(32, 16)
            loss = (model(rows) - rows.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        threads = torch.get_num_threads()
        return {"loss": loss.item(), "process": os.getpid(), "threads": threads}
    """


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A module of arms, and a cluster of two processes that can import it."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "training_lots.py").write_text(textwrap.dedent(MODULE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNLAB_CACHE", str(folder / "cache"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        patch.setenv("MARKS", str(folder))
        patch.syspath_prepend(folder)
        import training_lots

        own = {name: os.environ[name] for name in ("ALIGNLAB_CACHE", "MARKS")}
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=50,
            env=own,  # also of a worker that is started again
        ) as cluster:
            yield SimpleNamespace(
                arm=training_lots.train,
                address=cluster.scheduler_address,
                folder=folder,
            )
    sys.modules.pop("training_lots")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """What one process computes by itself."""

    def use(name):
        monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / name))

    return use


def losses(rows):
    return [(row["seed"], row["loss"]) for row in rows]


ARMS = [dict(seed=seed) for seed in (3, 1, 2, 0)]


# --- The same numbers -------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_give_the_numbers_of_one_process(lab, own_cache):
    assert os.environ["ALIGNLAB_CACHE"] == str(lab.folder / "cache")
    with engaged("dask", lab.address):
        many = run_arms(lab.arm, ARMS, jobs=1)
        again = run_arms(lab.arm, ARMS[:2], jobs=1)
    assert again == many[:2], "what is known is not computed again"
    assert os.getpid() not in {row["process"] for row in many}
    assert {row["threads"] for row in many} == {1}
    assert len({row["process"] for row in many}) == 2
    assert not list((lab.folder / "cache").glob(".seen*"))
    own_cache("alone")
    assert losses(run_arms(lab.arm, ARMS, jobs=1)) == losses(many)


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_no_number(lab, own_cache):
    slow = [dict(seed=seed, slow=True) for seed in range(4)]
    killed = []

    def kill_one():
        while not (begun := list(lab.folder.glob("begun-*"))):
            if stop.wait(0.05):
                return
        killed.append(int(begun[0].name.partition("-")[2]))
        os.kill(killed[0], signal.SIGKILL)
        (lab.folder / "killed").touch()  # nobody else need wait

    stop, killer = threading.Event(), threading.Thread(target=kill_one)
    killer.start()
    try:
        with engaged("dask", lab.address):
            many = run_arms(lab.arm, slow)
    finally:
        stop.set()
        killer.join()
    assert killed and killed[0] not in {row["process"] for row in many}
    own_cache("alone")
    assert losses(run_arms(lab.arm, slow, jobs=1)) == losses(many)


def test_the_environment_names_the_cluster_while_it_is_engaged(lab):
    os.environ.pop(ADDRESS, None)
    with engaged("dask", lab.address):
        assert os.environ[ADDRESS] == lab.address
        code = "from alignlab.study import workers; print(workers.scheduler_address())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert done.stdout.decode().strip() == lab.address, "so do the kernels"
    assert ADDRESS not in os.environ
    with engaged():
        assert ADDRESS not in os.environ and STORE not in os.environ


@pytest.mark.slow
def test_machines_without_a_common_folder_share_a_store(lab, own_cache, tmp_path):
    own_cache("elsewhere")
    with pytest.raises(AlignlabError, match="is not the folder of this run's"):
        with engaged("dask", lab.address):
            pass
    pair = [dict(seed=seed) for seed in (7, 8)]
    store = f"file://{tmp_path}/store"
    with engaged("dask", lab.address, store):
        many = run_arms(lab.arm, pair)
    assert len(list((tmp_path / "store").rglob("*.zip"))) >= 2
    with engaged(store=store):
        assert run_arms(lab.arm, pair, jobs=1) == many, "fetched: of other processes"
    own_cache("alone")
    assert losses(run_arms(lab.arm, pair, jobs=1)) == losses(many)


# --- Clusters that are refused ----------------------------------------------------


@pytest.fixture
def scheduler(monkeypatch):
    """A function that starts a cluster in this process, with so many workers."""
    monkeypatch.setattr(workers, "PATIENCE", 1)
    clusters = []

    def start(n_workers, threads=1):
        options = dict(n_workers=n_workers, threads_per_worker=threads)
        options |= dict(processes=False, dashboard_address=None, silence_logs=50)
        options["scheduler_kwargs"] = {"dashboard": False}
        clusters.append(distributed.LocalCluster(protocol="tcp://", **options))
        return clusters[-1].scheduler_address

    yield start
    for cluster in clusters:
        cluster.close()


def refused(address, **options):
    with pytest.raises(AlignlabError) as error, engaged("dask", address, **options):
        pass
    assert ADDRESS not in os.environ
    return str(error.value)


def test_an_address_where_nobody_listens(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1)
    said = refused("tcp://127.0.0.1:9")
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert "dask scheduler" in said and "\n" not in said
    assert "answers at nonsense" in refused("nonsense")


def test_a_scheduler_without_workers(scheduler):
    address = scheduler(0)
    said = refused(address)
    assert f"{address} has no workers" in said
    assert f"dask worker {address}" in said


def test_workers_of_several_threads(scheduler):
    assert "it runs 2 tasks at a time" in refused(scheduler(1, threads=2))


@pytest.mark.slow
def test_workers_with_other_versions(lab, monkeypatch):
    own = workers.versions()
    monkeypatch.setattr(workers, "versions", lambda: own | {"torch": "0.1"})
    said = refused(lab.address)
    assert f"it has torch {own['torch']}, and this run 0.1" in said
    assert "in an environment like this one" in said
    # One that joins later is told with its first task.
    wanted = {"versions": own | {"alignlab": "0"}, "token": "", "store": "x"}
    with distributed.Client(lab.address, set_as_default=False) as client:
        task = client.submit(workers._in_worker, dict, wanted)
        with pytest.raises(AlignlabError, match="it has alignlab .*, and this run 0"):
            task.result()


@pytest.mark.slow
def test_workers_without_alignlab(lab, monkeypatch, tmp_path):
    (tmp_path / "only_here.py").write_text("def unfitness(wanted):\n    return ''\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    monkeypatch.setattr(workers, "unfitness", only_here.unfitness)
    said = refused(lab.address)
    assert "is refused: ModuleNotFoundError" in said and "only_here" in said


def test_arms_of_other_code_are_refused(lab, monkeypatch):
    """As on a machine whose checkout is older: the versions may be the same."""
    monkeypatch.setattr(arms, "_path", lambda run, arm: cache.cache_dir() / "another")
    with engaged("dask", lab.address):
        with pytest.raises(AlignlabError, match="train depends on changed"):
            run_arms(lab.arm, [dict(seed=9)])


def test_arguments_that_go_together(tmp_path):
    with pytest.raises(AlignlabError, match="'ray'.*The one there is: dask"):
        engaged("ray", "x").__enter__()
    for arguments in (("dask", None), (None, "tcp://x:1")):
        with pytest.raises(AlignlabError, match="go together"):
            engaged(*arguments).__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(AlignlabError, match="store file:.* cannot be used"):
        engaged(store=f"file://{tmp_path}/file/x").__enter__()


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "alignlab[dask]" in refused("tcp://127.0.0.1:9")


# --- One GPU a process ------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """A machine with three GPUs, and which of them "cuda" was made to mean."""
    import torch

    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_every_process_has_a_gpu_of_its_own(gpus, monkeypatch):
    for number in range(5):
        monkeypatch.setattr(workers, "process_number", lambda number=number: number)
        workers.use_own_gpu("cuda")
    assert gpus == [0, 1, 2, 0, 1]


def test_a_device_that_is_named_stays(gpus, monkeypatch):
    monkeypatch.setattr(workers, "process_number", lambda: pytest.fail("not needed"))
    for device in ("cuda:1", "cpu", "meta"):
        workers.use_own_gpu(device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    workers.use_own_gpu("cuda")
    assert gpus == []


def test_a_process_has_the_lowest_number_that_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(workers.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(workers, "_numbers", [])
    another_process = workers.process_number.__wrapped__
    assert [another_process() for _ in range(3)] == [0, 1, 2]
    workers._numbers[1].release()  # as when a process ends
    assert another_process() == 1 and another_process() == 3
