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
    "DebertaForMaskedLM": ("encoders.deberta.DEBERTA", "masked_lm"),
    "DebertaForQuestionAnswering": ("encoders.deberta.DEBERTA", "spans"),
    "DebertaForSequenceClassification": ("encoders.deberta.DEBERTA", "classes"),
    "DebertaForTokenClassification": ("encoders.deberta.DEBERTA", "token_classes"),
    "DebertaModel": ("encoders.deberta.DEBERTA", "states"),
    "DebertaV2ForMaskedLM": ("encoders.deberta.DEBERTA2", "masked_lm"),
    "DebertaV2ForMultipleChoice": ("encoders.deberta.DEBERTA2", "choices"),
    "DebertaV2ForQuestionAnswering": ("encoders.deberta.DEBERTA2", "spans"),
    "DebertaV2ForSequenceClassification": ("encoders.deberta.DEBERTA2", "classes"),
    "DebertaV2ForTokenClassification": ("encoders.deberta.DEBERTA2", "token_classes"),
    "DebertaV2Model": ("encoders.deberta.DEBERTA2", "states"),
    "ModernBertForMaskedLM": ("encoders.modernbert.MODERNBERT", "masked_lm"),
    "ModernBertForMultipleChoice": ("encoders.modernbert.MODERNBERT", "choices"),
    "ModernBertForQuestionAnswering": ("encoders.modernbert.MODERNBERT", "spans"),
    "ModernBertForSequenceClassification": ("encoders.modernbert.MODERNBERT", "classes"),
    "ModernBertForTokenClassification": ("encoders.modernbert.MODERNBERT", "token_classes"),
    "ModernBertModel": ("encoders.modernbert.MODERNBERT", "states"),
    "XLNetForMultipleChoice": ("encoders.xlnet.XLNET", "choices"),
    "XLNetForQuestionAnsweringSimple": ("encoders.xlnet.XLNET", "spans"),
    "XLNetForSequenceClassification": ("encoders.xlnet.XLNET", "classes"),
    "XLNetForTokenClassification": ("encoders.xlnet.XLNET", "token_classes"),
    "XLNetLMHeadModel": ("encoders.xlnet.XLNET", "masked_lm"),
    "XLNetModel": ("encoders.xlnet.XLNET", "states"),
}
# Values of `model_type` in a config.json that names no architecture.
ENCODER_TYPES: Mapping[str, str] = {
    "bert": "BertModel",
    "deberta": "DebertaModel",
    "deberta-v2": "DebertaV2Model",
    "modernbert": "ModernBertModel",
    "xlnet": "XLNetModel",
}
# Architectures of a config.json that names none, by a tensor of the head that the folder then has.
WITH_HEAD: Mapping[str, Mapping[str, str]] = {
    architecture: {
        "lm_predictions.lm_head.dense.weight": masked_lm,
        "cls.predictions.transform.dense.weight": masked_lm,
    }
    for architecture, masked_lm in (
        ("DebertaModel", "DebertaForMaskedLM"),
        ("DebertaV2Model", "DebertaV2ForMaskedLM"),
    )
}
