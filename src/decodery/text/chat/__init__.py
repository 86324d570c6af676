"""From a conversation to a prompt: chat templates and their sandbox."""
