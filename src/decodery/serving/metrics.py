"""Counts what a server does, for Prometheus; the names are vLLM's with our prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from decodery.decoding.event import Times
from decodery.encoding.shared_batches import RanBatch
from decodery.engine.statistics import Statistics

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_MODEL = "model_name"


class Metrics:
    """Holds the metrics of one server, in a registry of its own.

    `statistics` returns the names of the open models with the statistics of their engines, and `waiting` the
    names of the open encoders with the number of their requests that have texts to run.
    """

    def __init__(
        self,
        statistics: Callable[[], Iterable[tuple[str, Statistics]]],
        waiting: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Engines(statistics))
        self.registry.register(_Encoders(waiting))
        self.finished = Counter(
            "decodery_request_success",
            "Completions that ended, by reason.",
            (_MODEL, "finished_reason"),
            registry=self.registry,
        )
        self.read = Counter(
            "decodery_encoder_requests",
            "Requests of encoders that ended, by reason.",
            (_MODEL, "finished_reason"),
            registry=self.registry,
        )
        names = {"texts": "Texts that encoders read.", "tokens": "Tokens of those texts."}
        self._read_counts = {
            name: Counter(f"decodery_encoder_{name}", text, (_MODEL,), registry=self.registry)
            for name, text in names.items()
        }
        self._batch_sizes = {
            name: Histogram(
                f"decodery_encoder_batch_{name}",
                f"The {name} of a batch.",
                (_MODEL,),
                buckets=buckets,
                registry=self.registry,
            )
            for name, buckets in {"texts": _TEXTS, "tokens": _TOKENS}.items()
        }
        self.first_token = self._histogram("time_to_first_token", "From arrival to the first token.", _LONG)
        self.inter_token = self._histogram(
            "inter_token_latency", "Between two steps that add to a text.", _SHORT
        )
        self.whole = self._histogram("e2e_request_latency", "From arrival to the end.", _LONG)
        self.queue = self._histogram("request_queue_time", "In the model's queue.", _LONG)
        self.prefill = self._histogram("request_prefill_time", "From the first step on.", _LONG)
        self.decode = self._histogram("request_decode_time", "From the prompt's end on.", _LONG)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"decodery_{name}_seconds", text, (_MODEL,), buckets=buckets, registry=self.registry)

    def count_batch(self, model: str, batch: RanBatch) -> None:
        """Counts a batch of an encoder; from any thread."""
        for name, count in {"texts": batch.texts, "tokens": batch.tokens}.items():
            self._read_counts[name].labels(model).inc(count)
            self._batch_sizes[name].labels(model).observe(count)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engines(Collector):
    """Reads the statistics of the engines when somebody asks for metrics."""

    def __init__(self, statistics: Callable[[], Iterable[tuple[str, Statistics]]]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of all engines."""
        found = list(self._statistics())
        gauges: dict[str, tuple[str, Callable[[Statistics], float]]] = {
            "requests_running": ("Requests that the engine computes.", lambda s: s.running),
            "requests_waiting": ("Requests in the engine's queue.", lambda s: s.waiting),
            "kv_cache_usage_perc": (
                "Share of the key/value pages in use, from 0 to 1.",
                lambda s: s.pages_used / s.pages,
            ),
            "longest_step_seconds": ("The longest step so far.", lambda s: s.longest_step),
        }
        counters: dict[str, tuple[str, Callable[[Statistics], float]]] = {
            "prompt_tokens": ("Tokens of prompts that were computed.", lambda s: s.prompt_tokens),
            "generation_tokens": ("Generated tokens.", lambda s: s.generated_tokens),
            "prefix_cache_queries": (
                "Tokens looked up in the prefix cache.",
                lambda s: s.prefix_queries,
            ),
            "prefix_cache_hits": ("Tokens found in the prefix cache.", lambda s: s.prefix_hits),
            "num_preemptions": ("Requests that were preempted.", lambda s: s.preemptions),
            "spec_decode_num_draft_tokens": ("Drafted tokens of speculation.", lambda s: s.drafted),
            "spec_decode_num_accepted_tokens": ("Drafted tokens that were accepted.", lambda s: s.accepted),
            "engine_steps": ("Steps of the engine.", lambda s: s.steps),
        }
        for name, (text, read) in gauges.items():
            gauge = GaugeMetricFamily(f"decodery_{name}", text, labels=(_MODEL,))
            for model, statistics in found:
                gauge.add_metric((model,), read(statistics))
            yield gauge
        yield from _drafts_by_source(found)
        for name, (text, read) in counters.items():
            counter = CounterMetricFamily(f"decodery_{name}", text, labels=(_MODEL,))
            for model, statistics in found:
                counter.add_metric((model,), read(statistics))
            yield counter


class _Encoders(Collector):
    """Counts the requests of encoders that wait when somebody asks for metrics."""

    def __init__(self, waiting: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        """Yields the gauge of all encoders."""
        text = "Requests of encoders with texts that have not run."
        gauge = GaugeMetricFamily("decodery_encoder_requests_waiting", text, labels=(_MODEL,))
        for model, count in self._waiting():
            gauge.add_metric((model,), count)
        yield gauge


def _drafts_by_source(found: Iterable[tuple[str, Statistics]]) -> Iterator[CounterMetricFamily]:
    """Yields the counts of the drafts that engines made by themselves, by model and source."""
    texts = ("Drafts of the engine's own, by source.", "Those of them that were accepted.")
    for place, name in enumerate(("draft_tokens", "accepted_tokens")):
        counter = CounterMetricFamily(f"decodery_auto_{name}", texts[place], labels=(_MODEL, "source"))
        for model, statistics in found:
            for source, counts in statistics.by_source.items():
                counter.add_metric((model, source), counts[place])
        yield counter


class Timeline:
    """Notes when a request arrived, and observes the times of its tokens."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._arrived = self._last = perf_counter()
        self.begun = False
        self._metrics = metrics
        self._model = model
        self._first_token = metrics.first_token.labels(model)
        self._inter_token = metrics.inter_token.labels(model)

    def begin(self) -> None:
        """Observes the time in the queue of a request of an encoder, whose first text runs now."""
        self._metrics.queue.labels(self._model).observe(perf_counter() - self._arrived)

    def token(self) -> None:
        """Observes the time to the first token, or since the last step."""
        now = perf_counter()
        (self._inter_token if self.begun else self._first_token).observe(now - self._last)
        self.begun = True
        self._last = now

    def end(self, times: Iterable[Times] = ()) -> None:
        """Observes the whole time of the request, and the engine's `times` of its prompts."""
        metrics, now = self._metrics, perf_counter()
        metrics.whole.labels(self._model).observe(now - self._arrived)
        for found in times:
            if found.started is None or found.prefilled is None:
                continue
            metrics.queue.labels(self._model).observe(found.started - found.queued)
            metrics.prefill.labels(self._model).observe(found.prefilled - found.started)
            metrics.decode.labels(self._model).observe(max(now - found.prefilled, 0))
