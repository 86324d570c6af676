"""Lists the architectures of encoders, with the place of the family and the head of each."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.models.contract import Head

# Entries of `architectures` in a config.json.
ENCODERS: Mapping[str, tuple[str, Head]] = {
    "AlbertForMaskedLM": ("encoders.albert.ALBERT", "masked_lm"),
    "AlbertForMultipleChoice": ("encoders.albert.ALBERT", "choices"),
    "AlbertForPreTraining": ("encoders.albert.ALBERT", "pretraining"),
    "AlbertForQuestionAnswering": ("encoders.albert.ALBERT", "spans"),
    "AlbertForSequenceClassification": ("encoders.albert.ALBERT", "classes"),
    "AlbertForTokenClassification": ("encoders.albert.ALBERT", "token_classes"),
    "AlbertModel": ("encoders.albert.ALBERT", "states"),
    "BertForMaskedLM": ("encoders.bert.BERT", "masked_lm"),
    "BertForMultipleChoice": ("encoders.bert.BERT", "choices"),
    "BertForNextSentencePrediction": ("encoders.bert.BERT", "next_sentence"),
    "BertForPreTraining": ("encoders.bert.BERT", "pretraining"),
    "BertForQuestionAnswering": ("encoders.bert.BERT", "spans"),
    "BertForSequenceClassification": ("encoders.bert.BERT", "classes"),
    "BertForTokenClassification": ("encoders.bert.BERT", "token_classes"),
    "BertModel": ("encoders.bert.BERT", "states"),
    "CamembertForMaskedLM": ("encoders.roberta.ROBERTA", "masked_lm"),
    "CamembertForMultipleChoice": ("encoders.roberta.ROBERTA", "choices"),
    "CamembertForQuestionAnswering": ("encoders.roberta.ROBERTA", "spans"),
    "CamembertForSequenceClassification": ("encoders.roberta.ROBERTA", "classes"),
    "CamembertForTokenClassification": ("encoders.roberta.ROBERTA", "token_classes"),
    "CamembertModel": ("encoders.roberta.ROBERTA", "states"),
    "DistilBertForMaskedLM": ("encoders.distilbert.DISTILBERT", "masked_lm"),
    "DistilBertForMultipleChoice": ("encoders.distilbert.DISTILBERT", "choices"),
    "DistilBertForQuestionAnswering": ("encoders.distilbert.DISTILBERT", "spans"),
    "DistilBertForSequenceClassification": ("encoders.distilbert.DISTILBERT", "classes"),
    "DistilBertForTokenClassification": ("encoders.distilbert.DISTILBERT", "token_classes"),
    "DistilBertModel": ("encoders.distilbert.DISTILBERT", "states"),
    "ElectraForMaskedLM": ("encoders.electra.ELECTRA", "masked_lm"),
    "ElectraForMultipleChoice": ("encoders.electra.ELECTRA", "choices"),
    "ElectraForPreTraining": ("encoders.electra.ELECTRA", "replaced"),
    "ElectraForQuestionAnswering": ("encoders.electra.ELECTRA", "spans"),
    "ElectraForSequenceClassification": ("encoders.electra.ELECTRA", "classes"),
    "ElectraForTokenClassification": ("encoders.electra.ELECTRA", "token_classes"),
    "ElectraModel": ("encoders.electra.ELECTRA", "states"),
    "MPNetForMaskedLM": ("encoders.mpnet.MPNET", "masked_lm"),
    "MPNetForMultipleChoice": ("encoders.mpnet.MPNET", "choices"),
    "MPNetForQuestionAnswering": ("encoders.mpnet.MPNET", "spans"),
    "MPNetForSequenceClassification": ("encoders.mpnet.MPNET", "classes"),
    "MPNetForTokenClassification": ("encoders.mpnet.MPNET", "token_classes"),
    "MPNetModel": ("encoders.mpnet.MPNET", "states"),
    "RobertaForMaskedLM": ("encoders.roberta.ROBERTA", "masked_lm"),
    "RobertaForMultipleChoice": ("encoders.roberta.ROBERTA", "choices"),
    "RobertaForQuestionAnswering": ("encoders.roberta.ROBERTA", "spans"),
    "RobertaForSequenceClassification": ("encoders.roberta.ROBERTA", "classes"),
    "RobertaForTokenClassification": ("encoders.roberta.ROBERTA", "token_classes"),
    "RobertaModel": ("encoders.roberta.ROBERTA", "states"),
    "XLMRobertaForMaskedLM": ("encoders.roberta.ROBERTA", "masked_lm"),
    "XLMRobertaForMultipleChoice": ("encoders.roberta.ROBERTA", "choices"),
    "XLMRobertaForQuestionAnswering": ("encoders.roberta.ROBERTA", "spans"),
    "XLMRobertaForSequenceClassification": ("encoders.roberta.ROBERTA", "classes"),
    "XLMRobertaForTokenClassification": ("encoders.roberta.ROBERTA", "token_classes"),
    "XLMRobertaModel": ("encoders.roberta.ROBERTA", "states"),
}
# Values of `model_type` in a config.json that names no architecture.
ENCODER_TYPES: Mapping[str, str] = {
    "albert": "AlbertModel",
    "bert": "BertModel",
    "camembert": "CamembertModel",
    "distilbert": "DistilBertModel",
    "electra": "ElectraModel",
    "mpnet": "MPNetModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
