"""Measures one peer of the engine: builds or loads its index, searches with one setting after the other, prints a JSON
line for each. A fresh process for every call, started and pinned by compare.py.

Every class below wraps one library and says which of its calls is timed. Libraries whose Python call costs more than a
few microseconds are given all queries in one call and one thread, which favours them.
"""

import argparse
import ctypes
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np

K = 10
EF = [*range(10, 32, 2), *range(32, 48, 4), *range(48, 96, 8), 96, 112, 128, 160, 192, 224, 256]
EF += [320, 400, 512, 640, 800, 1024]
# Lists or leaves that are looked into.
PROBES = [2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
# Where a search runs: one thread away from the core that serves most interrupts, two on both.
CORES = {1: {1}, 2: {0, 1}}


def rows_of(path):
    """A matrix of f32 as the `prepare` command of our runner writes it."""
    rows, dimension = np.fromfile(path, np.uint32, 2)
    return np.fromfile(path, np.float32, offset=8).reshape(rows, dimension)


class Data:
    """Base rows, the queries of one half, and what is true of them."""

    def __init__(self, folder, half, filter_name):
        folder = Path(folder)
        self.base = rows_of(folder / "base.fbin")
        queries = rows_of(folder / "queries.fbin")
        self.dimension = self.base.shape[1]
        self.is_cosine = not folder.name.startswith("clustered")
        suffix = f"-{filter_name}" if filter_name else ""
        path = folder / f"truth{suffix}.bin"
        count, depth = np.fromfile(path, np.uint32, 2)
        scores = np.fromfile(path, np.float64, offset=8 + 4 * count * depth).reshape(count, depth)
        chosen = slice(0, None, 2) if half == "tune" else slice(1, None, 2)
        self.queries = np.ascontiguousarray(queries[chosen])
        self.bars = scores[chosen, K - 1]
        self.masks = None
        if filter_name:
            path = folder / f"mask-{filter_name}.bin"
            bitmaps, rows = np.fromfile(path, np.uint32, 2)
            masks = np.fromfile(path, np.uint8, offset=8).reshape(bitmaps, (rows + 7) // 8)
            self.masks = masks if bitmaps == 1 else np.ascontiguousarray(masks[chosen])

    def recall(self, found):
        """Share of the best ten that was found: a row counts once, when its exact score reaches the tenth best."""
        hits = 0
        for query, bar, ids in zip(self.queries.astype(np.float64), self.bars, found):
            ids = np.unique(ids[(ids >= 0) & (ids < len(self.base))].astype(np.int64))
            rows = self.base[ids].astype(np.float64)
            if self.is_cosine:
                scores = rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
                hits += min(K, int((scores >= bar - 1e-6).sum()))
            else:
                hits += min(K, int((np.linalg.norm(rows - query, axis=1) <= bar + 1e-6).sum()))
        return hits / (K * len(self.queries))


class Peer:
    """What a library must do. `variant` is one way to build, a dict; a setting is one way to search."""

    def __init__(self, data, variant):
        self.data, self.variant = data, variant

    def build(self, threads):
        raise NotImplementedError

    def save(self, path):
        raise NotImplementedError

    def load(self, path):
        raise NotImplementedError

    def prepare(self, setting, threads):
        """Applies a setting; not timed."""

    def search(self, queries, setting, threads):
        """The ids of the best ten of each query; timed."""
        raise NotImplementedError

    def load_filtering(self, path):
        """Gets ready for filtered searches; like `load` where nothing else is needed."""
        self.load(path)

    def search_filtered(self, queries, masks, setting):
        """The same on one thread among the rows whose bit is set in the only mask or in the query's; timed."""
        raise NotImplementedError(f"{type(self).__name__} has no filter")


def spread(queries, threads, search):
    """For libraries without threads of their own: each Python thread takes its share."""
    if threads == 1:
        return search(queries)
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(search, np.array_split(queries, threads))))


class Hnswlib(Peer):
    """hnswlib.knn_query: all queries in one call, which loops over them."""

    variants = [{"M": 16}, {"M": 32}]
    settings = EF

    def empty(self):
        import hnswlib

        return hnswlib.Index("ip" if self.data.is_cosine else "l2", self.data.dimension)

    def build(self, threads):
        self.index = self.empty()
        self.index.init_index(len(self.data.base), ef_construction=200, M=self.variant["M"])
        self.index.add_items(self.data.base, num_threads=threads)

    def save(self, path):
        self.index.save_index(path)

    def load(self, path):
        self.index = self.empty()
        self.index.load_index(path)

    def prepare(self, setting, threads):
        self.index.set_ef(setting)

    def search(self, queries, setting, threads):
        return self.index.knn_query(queries, K, num_threads=threads)[0].astype(np.int64)

    def load_filtering(self, path):
        """A small library beside the Python package, see hnswlib_filter.cpp."""
        self.native = ctypes.CDLL(os.environ["HNSWLIB_FILTER"])
        self.native.load.restype = ctypes.c_void_p
        arguments = path.encode(), ctypes.c_size_t(self.data.dimension), ctypes.c_bool(self.data.is_cosine)
        self.handle = ctypes.c_void_p(self.native.load(*arguments))

    def search_filtered(self, queries, masks, setting):
        found = np.empty((len(queries), K), np.int64)
        stride = masks.shape[1] if len(masks) > 1 else 0
        sizes = [ctypes.c_size_t(size) for size in (len(queries), self.data.dimension, K, setting)]
        address = [ctypes.c_void_p(array.ctypes.data) for array in (queries, masks, found)]
        self.native.search(self.handle, address[0], *sizes, address[1], ctypes.c_size_t(stride), address[2])
        return found


class Faiss(Peer):
    """faiss.Index.search. Graphs: all queries in one call, which loops over them. IVF: one call a query, since a call
    with many would share work between them."""

    settings = EF

    @staticmethod
    def variants_of(data):
        lists = 1024 if len(data.base) < 500_000 else 4096
        pq = data.dimension // 2
        filtering = [f"IVF{lists},Flat", "Flat", "HNSW32,Flat"]
        graphs = [f"HNSW{m},{codes}" for m in (32, 16) for codes in ("SQfp16", "SQ8", "Flat")]
        routed = [f"IVF{lists}", f"IVF{lists}_HNSW32"]
        inverted = [f"{lists},PQ{pq}x4fs,RFlat" for lists in routed] + [f"{routed[0]},RaBitQfs,RFlat"]
        return [{"factory": factory} for factory in (filtering if data.masks is not None else graphs + inverted)]

    def build(self, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        metric = faiss.METRIC_INNER_PRODUCT if self.data.is_cosine else faiss.METRIC_L2
        self.index = faiss.index_factory(self.data.dimension, self.variant["factory"], metric)
        if "HNSW" in self.variant["factory"] and "IVF" not in self.variant["factory"]:
            faiss.downcast_index(self.index).hnsw.efConstruction = 200
        self.index.train(self.data.base)
        self.index.add(self.data.base)
        self.adopt()

    def adopt(self):
        factory = self.variant["factory"]
        self.is_ivf = "IVF" in factory
        if "RFlat" in factory:
            self.settings = [(probes, factor) for probes in PROBES for factor in (4, 8, 16, 32, 64)]
        elif self.is_ivf:
            self.settings = PROBES
        elif factory == "Flat":
            self.settings = [0]

    def save(self, path):
        import faiss

        faiss.write_index(self.index, path)

    def load(self, path):
        import faiss

        self.index = faiss.read_index(path)
        self.adopt()

    def prepare(self, setting, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        if self.is_ivf:
            probes, factor = setting
            self.index.k_factor = factor
            ivf = faiss.extract_index_ivf(self.index)
            ivf.nprobe = probes
            if "HNSW" in self.variant["factory"]:
                faiss.downcast_index(ivf.quantizer).hnsw.efSearch = max(32, 2 * probes)
        else:
            faiss.downcast_index(self.index).hnsw.efSearch = setting

    def search(self, queries, setting, threads):
        if not self.is_ivf:
            return self.index.search(queries, K)[1]
        return spread(queries, threads, self.one_by_one)

    def one_by_one(self, queries):
        return self.each(queries, [None])

    def each(self, queries, parameters):
        """One call a query, past the checks of the Python wrapper."""
        import faiss

        found = np.empty((len(queries), K), np.int64)
        scores = np.empty((len(queries), K), np.float32)
        search, address = self.index.search_c, faiss.swig_ptr
        for query, ids, score, parameter in zip(queries, found, scores, cycle(parameters)):
            search(1, address(query), K, address(score), address(ids), parameter)
        return found

    def load_filtering(self, path):
        import faiss

        self.load(path)
        faiss.omp_set_num_threads(1)
        selectors = [faiss.IDSelectorBitmap(mask) for mask in self.data.masks]
        kind = {"H": faiss.SearchParametersHNSW, "I": faiss.SearchParametersIVF, "F": faiss.SearchParameters}
        self.parameters = [kind[self.variant["factory"][0]](sel=selector) for selector in selectors]

    def search_filtered(self, queries, masks, setting):
        factory = self.variant["factory"]
        for parameter in self.parameters:
            if factory.startswith("HNSW"):
                parameter.efSearch = setting
            elif factory.startswith("IVF"):
                parameter.nprobe = setting
        return self.each(queries, self.parameters)


class Usearch(Peer):
    """usearch.index.Index.search: all queries in one call, which loops over them."""

    variants = [{"M": m, "codes": codes} for m in (16, 32) for codes in ("bf16", "i8", "f32")]
    settings = EF

    def empty(self):
        from usearch.index import Index

        metric = "ip" if self.data.is_cosine else "l2sq"
        if self.variant["codes"] == "i8" and self.data.is_cosine:
            metric = "cos"
        shape = {"connectivity": self.variant["M"], "expansion_add": 200}
        return Index(ndim=self.data.dimension, metric=metric, dtype=self.variant["codes"], **shape)

    def build(self, threads):
        self.index = self.empty()
        self.index.add(np.arange(len(self.data.base)), self.data.base, threads=threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index = self.empty()
        self.index.load(path)

    def prepare(self, setting, threads):
        self.index.expansion_search = setting

    def search(self, queries, setting, threads):
        return self.index.search(queries, K, threads=threads).keys.astype(np.int64)


class Scann(Peer):
    """ScannSearcher.search_batched on one thread: all queries in one call."""

    @staticmethod
    def variants_of(data):
        leaves = int(len(data.base) ** 0.5)
        return [{"leaves": leaves * scale, "soar": soar} for scale in (2, 4) for soar in (1.5, None)]

    settings = [(leaves, reorder) for leaves in PROBES for reorder in (20, 40, 80, 160, 320)]

    def build(self, threads):
        import scann

        metric = "dot_product" if self.data.is_cosine else "squared_l2"
        builder = scann.scann_ops_pybind.builder(self.data.base, K, metric).set_n_training_threads(threads)
        tree = {"soar_lambda": self.variant["soar"], "overretrieve_factor": 2.0} if self.variant["soar"] else {}
        sample = min(len(self.data.base), 250_000)
        tree |= {"num_leaves": self.variant["leaves"], "num_leaves_to_search": 10, "training_sample_size": sample}
        builder = builder.tree(**tree)
        # The anisotropic threshold is made for inner products of vectors of one length.
        threshold = 0.2 if self.data.is_cosine else float("nan")
        builder = builder.score_ah(2, anisotropic_quantization_threshold=threshold)
        self.index = builder.reorder(100).build()

    def save(self, path):
        os.makedirs(path, exist_ok=True)
        self.index.serialize(path)

    def load(self, path):
        import scann

        self.index = scann.scann_ops_pybind.load_searcher(path)

    def prepare(self, setting, threads):
        self.index.set_num_threads(threads)

    def search(self, queries, setting, threads):
        leaves, reorder = setting
        search = self.index.search_batched_parallel if threads > 1 else self.index.search_batched
        return search(queries, leaves_to_search=leaves, pre_reorder_num_neighbors=reorder)[0].astype(np.int64)


class Symqg(Peer):
    """rabitqlib.SymqgIndex.search (SymphonyQG): all queries in one call."""

    variants = [{"degree": 32}, {"degree": 64}]
    settings = EF

    def empty(self):
        import rabitqlib

        metric = "ip" if self.data.is_cosine else "l2"
        return rabitqlib.SymqgIndex(self.data.dimension, self.variant["degree"], metric)

    def build(self, threads):
        self.index = self.empty()
        self.index.build(self.data.base, 200, threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        import rabitqlib

        self.index = rabitqlib.SymqgIndex.load(path)

    def search(self, queries, setting, threads):
        found = self.index.search(queries, K, setting, threads)
        return np.asarray(found[0] if found[0].dtype.kind in "ui" else found[1]).astype(np.int64)


class Svs(Peer):
    """svs.Vamana.search (Scalable Vector Search): all queries in one call."""

    variants = [{"degree": d, "codes": codes} for d in (32, 64) for codes in ("f16", "f32")]
    settings = EF

    def arguments(self):
        import svs

        kind = svs.DistanceType.MIP if self.data.is_cosine else svs.DistanceType.L2
        return kind, np.float16 if self.variant["codes"] == "f16" else np.float32

    def build(self, threads):
        import svs

        kind, element = self.arguments()
        alpha = 0.95 if self.data.is_cosine else 1.2
        shape = {"graph_max_degree": self.variant["degree"], "window_size": 200}
        parameters = svs.VamanaBuildParameters(alpha=alpha, **shape)
        self.index = svs.Vamana.build(parameters, self.data.base.astype(element), kind, num_threads=threads)

    def save(self, path):
        for part in ("config", "graph", "data"):
            os.makedirs(f"{path}/{part}", exist_ok=True)
        self.index.save(f"{path}/config", f"{path}/graph", f"{path}/data")

    def load(self, path):
        import svs

        kind, _ = self.arguments()
        element = svs.DataType.float16 if self.variant["codes"] == "f16" else svs.DataType.float32
        loader = svs.VectorDataLoader(f"{path}/data", element)
        self.index = svs.Vamana(f"{path}/config", svs.GraphLoader(f"{path}/graph"), loader, kind, num_threads=1)

    def prepare(self, setting, threads):
        self.index.num_threads = threads
        self.index.search_window_size = setting

    def search(self, queries, setting, threads):
        return self.index.search(queries, K)[0].astype(np.int64)


class Vsag(Peer):
    """pyvsag.Index.knn_search: one call a query, which parses its setting from JSON each time."""

    variants = [{"degree": degree, "codes": codes} for degree in (32, 64) for codes in ("sq8_uniform",)]
    settings = EF

    def empty(self):
        import pyvsag

        pyvsag.set_logger_off()
        built = {
            "base_quantization_type": self.variant["codes"],
            "use_reorder": True,
            "precise_quantization_type": "fp32",
            "max_degree": self.variant["degree"],
            "ef_construction": 200,
            "build_thread_count": 2,
        }
        metric = "ip" if self.data.is_cosine else "l2"
        common = {"dtype": "float32", "metric_type": metric, "dim": self.data.dimension, "index_param": built}
        return pyvsag.Index("hgraph", json.dumps(common))

    def build(self, threads):
        self.index = self.empty()
        rows, dimension = self.data.base.shape
        self.index.build(self.data.base.reshape(-1), np.arange(rows), rows, dimension)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index = self.empty()
        self.index.load(path)

    def prepare(self, setting, threads):
        self.options = json.dumps({"hgraph": {"ef_search": setting}})

    def search(self, queries, setting, threads):
        return spread(queries, threads, self.one_by_one)

    def one_by_one(self, queries):
        search, options = self.index.knn_search, self.options
        return np.stack([search(query, K, options)[0] for query in queries])


PEERS = {
    "faiss": Faiss,
    "hnswlib": Hnswlib,
    "scann": Scann,
    "svs": Svs,
    "symqg": Symqg,
    "usearch": Usearch,
    "vsag": Vsag,
}


def variants_of(peer, data, quick):
    variants = peer.variants_of(data) if hasattr(peer, "variants_of") else peer.variants
    return variants[:1] if quick else variants


def label(variant):
    return " ".join(f"{key}={value}" for key, value in variant.items())


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def built(name, peer, arguments, data):
    """The index, built once for a folder, and the seconds that took."""
    folder = Path(arguments.indexes).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{Path(arguments.folder).name}-{name}-{label(peer.variant)}".replace(" ", "-").replace(",", "-")
    note = folder / f"{stem}.json"
    path = str(folder / stem)
    if arguments.rebuild or not note.exists():
        started, cpu = time.perf_counter(), time.process_time()
        peer.build(arguments.build_threads)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        peer.save(path)
        took = {"build_s": round(seconds, 2), "build_cpu_s": round(cpu, 2), "build_threads": arguments.build_threads}
        note.write_text(json.dumps(took))
    # Threads that loading starts stay where the search runs.
    os.sched_setaffinity(0, CORES[arguments.threads])
    before = resident_bytes()
    (peer.load if data.masks is None else peer.load_filtering)(path)
    return json.loads(note.read_text()), resident_bytes() - before


def timed(peer, data, setting, arguments):
    """Queries a second and recall. A call takes the queries several times over where once would be too short."""
    if data.masks is None:
        peer.prepare(setting, arguments.threads)
        search = lambda queries: peer.search(queries, setting, arguments.threads)
    else:
        search = lambda queries: peer.search_filtered(queries, data.masks, setting)
    found = search(data.queries)
    started = time.perf_counter()
    search(data.queries)
    once = time.perf_counter() - started
    repeated = max(1, round(0.1 / once)) if data.masks is None else 1
    queries = np.tile(data.queries, (repeated, 1))
    done, started, processor = 0, time.perf_counter(), time.process_time()
    while done == 0 or time.perf_counter() < started + arguments.seconds:
        search(queries)
        done += len(queries)
    processor = (time.process_time() - processor) / arguments.threads
    return done / (time.perf_counter() - started), done / processor, data.recall(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--folder", required=True, help="a set that our runner prepared")
    parser.add_argument("--indexes", required=True, help="where built indexes are kept")
    parser.add_argument("--variant", help="JSON; all variants where it is left out")
    parser.add_argument("--settings", help="JSON list; the whole grid where it is left out")
    parser.add_argument("--half", choices=["tune", "report"], default="report")
    parser.add_argument("--filter")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--build-threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="fewer variants")
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--enough", type=float, default=2.0, help="stop the grid at this recall")
    arguments = parser.parse_args()
    # Libraries print progress to wherever file descriptor 1 leads: the results keep it for themselves.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    data = Data(arguments.folder, arguments.half, arguments.filter)
    kind = PEERS[arguments.peer]
    everywhere = os.sched_getaffinity(0)
    for variant in [json.loads(arguments.variant)] if arguments.variant else variants_of(kind, data, arguments.quick):
        os.sched_setaffinity(0, everywhere)
        peer = kind(data, variant)
        note, size = built(arguments.peer, peer, arguments, data)
        settings = json.loads(arguments.settings) if arguments.settings else peer.settings
        for setting in settings:
            qps, cpu_qps, recall = timed(peer, data, setting, arguments)
            line = {
                "name": arguments.peer,
                "data": Path(arguments.folder).name.split("-")[0],
                "threads": arguments.threads,
                "variant": variant,
                "setting": setting,
                "recall": round(recall, 4),
                "qps": round(qps, 1),
                "cpu_qps": round(cpu_qps, 1),
                "bytes": size,
                **note,
            }
            print(json.dumps(line), file=results, flush=True)
            # Of pairs only the cheapest second part tells that a larger first part is not worth a try.
            is_cheapest = not isinstance(setting, (tuple, list)) or setting[1] == settings[0][1]
            if recall >= arguments.enough and is_cheapest:
                break


if __name__ == "__main__":
    main()
