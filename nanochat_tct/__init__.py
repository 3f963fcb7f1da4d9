"""Train and tune small language models of GitHub Actions workflows on Ray, on a schema-aware tokenizer."""
