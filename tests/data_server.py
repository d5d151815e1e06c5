"""Both publishers of the jets, played by a web server on this machine, and small files in their formats."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import h5py
import numpy as np

from jsc_explore.data import CLASSES, FEATURES

METADATA = "/api/v1/json/data/42468"
ARFF = "/data/v1/download/22044755/hls4ml_lhc_jets_hlf.arff"
HDF5 = "/index.php/s/jvFd5MoWhGs1l5v/download"


def some_jets(rows: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 16)).astype(np.float32)
    features[:, FEATURES.index("multiplicity")] = rng.integers(3, 99, rows)
    return features, (np.arange(rows) % 5).astype(np.uint8)


def as_arff(features: np.ndarray, classes: list[str], names: tuple[str, ...] = FEATURES) -> bytes:
    """Write as OpenML does: a commented header, alphabetical classes, integers without a point."""
    head = ["% jets", "@RELATION hls4ml_lhc_jets_hlf", ""]
    head += [f"@ATTRIBUTE {name} {'INTEGER' if name == 'multiplicity' else 'REAL'}" for name in names]
    head += ["@ATTRIBUTE class {g, q, t, w, z}", "", "@DATA"]
    rows = [
        ",".join([*(f"{v:.0f}" if v == round(v) else repr(float(v)) for v in row), kind])
        for row, kind in zip(features, classes, strict=True)
    ]
    return "\n".join(head + rows + [""]).encode()


def as_hdf5(
    features: np.ndarray, one_hot: np.ndarray, names: tuple[str, ...] = FEATURES, data_set: str = "t_allpar_new"
) -> bytes:
    """Write as CERNBox's file is: one compound data set, wanted columns among others, in no helpful order."""
    kind = [("index", "<i8"), ("j1_pt", "<f4", (3,)), ("j_pt", "<f8")]
    kind += [(f"j_{name}", "<f4") for name in reversed(names)]
    kind += [(f"j_{name}", "<i4") for name in ("t", "undef", "z", "w", "q", "g")]
    table = np.zeros(len(features), np.dtype(kind))
    for column, name in enumerate(names):
        table[f"j_{name}"] = features[:, column]
    for column, name in enumerate(CLASSES):
        table[f"j_{name}"] = one_hot[:, column]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(data_set, data=table, **({"compression": "gzip", "chunks": (16,)} if len(table) else {}))
    return buffer.getvalue()


@dataclass
class Submission:
    body: bytes
    status: int = 200
    announced: int | None = None  # Content-Length, where it is to differ from the body's
    wait_s: float = 0.0


@dataclass
class Publisher:
    """A web server with answers put in by the test: the next of a list each time, its last for ever."""

    url: str = ""
    answers: dict[str, list[Submission]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)

    def openml(self, arff: bytes | list[Submission], **metadata: object) -> None:
        whole = arff if isinstance(arff, bytes) else arff[-1].body
        description = {
            "id": "42468",
            "format": "ARFF",
            "licence": "Public",
            "url": self.url + ARFF,
            "md5_checksum": hashlib.md5(whole).hexdigest(),
            "default_target_attribute": "class",
        }
        text = json.dumps({"data_set_description": description | metadata}).encode()
        self.answers[METADATA] = [Submission(text)]
        self.answers[ARFF] = [Submission(arff)] if isinstance(arff, bytes) else arff

    def cernbox(self, *answers: Submission | bytes) -> None:
        self.answers[HDF5] = [a if isinstance(a, Submission) else Submission(a) for a in answers]

    def next(self, path: str) -> Submission:
        self.hits[path] += 1
        queue = self.answers.get(path, [Submission(b"gone", 404)])
        return queue.pop(0) if len(queue) > 1 else queue[0]


@contextmanager
def publishing() -> Iterator[Publisher]:
    """Serve on a free port of the loopback, until the end of the block."""
    known = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = known.next(self.path)
            time.sleep(answer.wait_s)
            self.send_response(answer.status)
            self.send_header("Content-Length", str(answer.announced or len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield known
    server.shutdown()
    server.server_close()
