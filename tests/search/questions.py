"""Lists questions about this project, each with the page of the documents that answers it."""

QUESTIONS = {
    "How does beam search keep several candidate texts?": "learn/beam-search.md",
    "Why does greedy decoding repeat itself?": "learn/greedy.md",
    "What is the difference between top-k, top-p and min-p?": "learn/truncation.md",
    "What does the temperature do when tokens are drawn?": "learn/sampling.md",
    "How can a small draft model make generation faster?": "learn/speculation.md",
    "How does contrastive search avoid degenerate text?": "learn/contrastive-search.md",
    "How do I force the output to follow a regular expression or a JSON schema?": "learn/grammars.md",
    "How is text divided into tokens?": "learn/tokenizers.md",
    "Which files can a tokenizer be read from?": "tokenizers.md",
    "How do I start an HTTP server that speaks OpenAI's API?": "serving.md",
    "Which fields of a chat completion request does the server accept?": "serving-fields.md",
    "In which order are the penalties applied to the logits?": "processors.md",
    "Which model architectures are supported?": "families.md",
    "How are tools called in a conversation, and how is reasoning parsed?": "chat.md",
    "How much faster than llama.cpp is it?": "benchmarks.md",
    "What do the fields of a trace event mean?": "trace.md",
    "How do I write generation parameters as JSON?": "plain-parameters.md",
    "How do I compare two models side by side in the browser?": "page.md",
    "What happens to a prompt from the call of generate to the text?": "life-of-a-request.md",
    "How much quality does quantisation to 4 bits cost?": "quality.md",
}
