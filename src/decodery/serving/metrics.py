"""Counts what a server does, for Prometheus; the names are vLLM's with our prefix."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Holds the metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = ("model_name",)
        self.running = self._gauge("decodery_requests_running", "Requests with tokens in the engine.", name)
        self.waiting = self._gauge("decodery_requests_waiting", "Requests in the engine's queue.", name)
        self.cache_usage = self._gauge(
            "decodery_kv_cache_usage_perc", "Share of the key/value pages in use, from 0 to 1.", name
        )
        self.finished = self._counter(
            "decodery_request_success", "Requests that ended, by reason.", (*name, "finished_reason")
        )
        self.prompt_tokens = self._counter("decodery_prompt_tokens", "Tokens of prompts.", name)
        self.generation_tokens = self._counter("decodery_generation_tokens", "Generated tokens.", name)
        self.first_token = self._histogram(
            "decodery_time_to_first_token_seconds", "From arrival to the first token.", _LONG
        )
        self.inter_token = self._histogram(
            "decodery_inter_token_latency_seconds", "Between two steps of a text.", _SHORT
        )
        self.whole = self._histogram(
            "decodery_e2e_request_latency_seconds", "From arrival to the last token.", _LONG
        )

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model_name",), buckets=buckets, registry=self.registry)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Timeline:
    """Notes when a request arrived, and observes the times of its tokens."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._arrived = self._last = perf_counter()
        self.begun = False
        self._first_token = metrics.first_token.labels(model)
        self._inter_token = metrics.inter_token.labels(model)
        self._whole = metrics.whole.labels(model)

    def token(self) -> None:
        """Observes the time to the first token, or since the last step."""
        now = perf_counter()
        (self._inter_token if self.begun else self._first_token).observe(now - self._last)
        self.begun = True
        self._last = now

    def end(self) -> None:
        """Observes the whole time of the request."""
        self._whole.observe(perf_counter() - self._arrived)
