"""What an import or a whole page loads, each in a fresh interpreter: a page that starts fast loads no torch."""

import subprocess
import sys

import pytest
from servers import ROOT

TORCH = {"torch", "lightning", "distributed"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("jsc_explore.config", {*TORCH, "streamlit"}),
        ("jsc_explore.data", {*TORCH, "sklearn", "scipy", "h5py", "pooch", "requests", "pandas", "pyarrow"}),
        ("jsc_explore.store", {*TORCH, "streamlit", "sklearn", "pandas"}),
        ("jsc_explore.export", {*TORCH, "streamlit"}),
        ("app", TORCH),
    ],
)
def test_an_import_loads_nothing_heavy(module, absent):
    code = f"import {module}, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.split())
    assert module in loaded
    assert loaded & absent == set()


def test_the_whole_page_leaves_torch_alone(tmp_path):
    code = (
        "import sys; from streamlit.testing.v1 import AppTest;"
        "from jsc_explore.jobs.engine.supervisor import Supervisor;"
        "Supervisor.start = Supervisor.stop = lambda self: None;"
        f"run = AppTest.from_file({str(ROOT / 'app.py')!r}, default_timeout=30).run();"
        "assert not run.exception; assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    )
    environment = {"JSC_EXPLORE_STORE": str(tmp_path), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, env=environment)
