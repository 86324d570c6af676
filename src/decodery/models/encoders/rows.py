"""Lists the architectures of encoders, with the place of the family and the head of each."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.models.contract import Head

# Entries of `architectures` in a config.json.
ENCODERS: Mapping[str, tuple[str, Head]] = {
    "BertForMaskedLM": ("encoders.bert.BERT", "masked_lm"),
    "BertForMultipleChoice": ("encoders.bert.BERT", "choices"),
    "BertForNextSentencePrediction": ("encoders.bert.BERT", "next_sentence"),
    "BertForPreTraining": ("encoders.bert.BERT", "pretraining"),
    "BertForQuestionAnswering": ("encoders.bert.BERT", "spans"),
    "BertForSequenceClassification": ("encoders.bert.BERT", "classes"),
    "BertForTokenClassification": ("encoders.bert.BERT", "token_classes"),
    "BertModel": ("encoders.bert.BERT", "states"),
    "ModernBertForMaskedLM": ("encoders.modernbert.MODERNBERT", "masked_lm"),
    "ModernBertForMultipleChoice": ("encoders.modernbert.MODERNBERT", "choices"),
    "ModernBertForQuestionAnswering": ("encoders.modernbert.MODERNBERT", "spans"),
    "ModernBertForSequenceClassification": ("encoders.modernbert.MODERNBERT", "classes"),
    "ModernBertForTokenClassification": ("encoders.modernbert.MODERNBERT", "token_classes"),
    "ModernBertModel": ("encoders.modernbert.MODERNBERT", "states"),
}
# Values of `model_type` in a config.json that names no architecture.
ENCODER_TYPES: Mapping[str, str] = {
    "bert": "BertModel",
    "modernbert": "ModernBertModel",
}
