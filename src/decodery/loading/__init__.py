"""Opens models: finds the checkpoint, picks a backend, builds the model and its tokenizer."""
