"""Defines the tasks of vectors that have a published name."""

from __future__ import annotations

from decodery.evaluation.vectors.classification_task import ClassificationTask
from decodery.evaluation.vectors.clustering_task import ClusteringTask
from decodery.evaluation.vectors.reranking_task import RerankingTask
from decodery.evaluation.vectors.retrieval_task import RetrievalTask
from decodery.evaluation.vectors.similarity_task import SimilarityTask

STSB = SimilarityTask("stsb", 0, 5)
BANKING77 = ClassificationTask("banking77", labels=77)
CLASSIFICATION = ClassificationTask("classification")
RETRIEVAL = RetrievalTask()
RERANKING = RerankingTask()
CLUSTERING = ClusteringTask()
