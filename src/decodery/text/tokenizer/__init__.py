"""Between text and token ids: tokenizers and the vocabularies of both formats."""
